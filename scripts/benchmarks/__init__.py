"""Measures this gateway beside OpenClaw's own and beside bare echo servers, in one run on one machine
(`scripts/bench`).
"""
