"""Decisions, pure: who is this peer, where does it come from, what may it do, and why.

Each verdict carries the trail of reasons that led to it. Nothing here imports trio, reads a clock, draws randomness,
logs or opens a file: values and `now` in, values out. `tests/protocol/test_purity.py` fails if that stops being true.
"""
