"""The command line: one module per command (group), each imported when it is called for.

It speaks to a gateway through `openclaw_gateway.client` and starts one through the public face only. Invariants:
``--help`` imports nothing but click; a secret is never printed; errors say what happened, why, and the one command
that mends it; exit codes are 0 (done), 1 (failed), 2 (wrong usage), 78 (a configuration that must not be retried).
"""
