"""The wire, pure: frames, dialects, connect parameters, device signatures, scopes, error table, close codes.

Nothing here imports trio, reads a clock, draws randomness, logs or opens a file: values and `now` in, values out.
`tests/protocol/test_purity.py` fails if that stops being true.
"""
