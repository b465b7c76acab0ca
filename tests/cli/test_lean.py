"""What a default start never uses is left out of the gateway's own process, and of no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.program import ROOT

LEAN = """
import sys
from openclaw_gateway.cli.lean import leave_out_unused
leave_out_unused()
from openclaw_gateway.app import open_gateway
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"h2", "hpack", "hyperframe", "wsproto"}, loaded
loaded = set(sys.modules)
never = {
    "asyncio", "bcrypt", "cryptography", "csv", "dns", "email.message", "google.protobuf", "httpx",
    "importlib.metadata", "logging.config", "logging.handlers", "multiprocessing", "rich", "socketserver",
    "structlog", "tomllib", "trio_websocket", "unittest", "xml", "zeroconf", "zipfile",
}
assert not loaded & never, loaded & never
import importlib.metadata, logging.config, multiprocessing.synchronize, tomllib
assert importlib.metadata.version("hypercorn") and tomllib.loads("a = 1") == {"a": 1}
assert logging.config.dictConfig({"version": 1}) is None
assert multiprocessing.synchronize.Event.__module__ == "multiprocessing.synchronize"
import h2.connection  # whoever wants it gets the real one
assert h2.connection.H2Connection
"""
EMBEDDED = """
import hypercorn.protocol
from openclaw_gateway.cli.lean import leave_out_unused
leave_out_unused()
from hypercorn.protocol import H2Protocol
assert H2Protocol.__module__ == "hypercorn.protocol.h2" and hasattr(H2Protocol, "send_task")
"""
LIBRARY = """
import openclaw_gateway.app
from hypercorn.protocol import H2Protocol
assert hasattr(H2Protocol, "send_task")
"""


@pytest.mark.parametrize("script", [LEAN, EMBEDDED, LIBRARY], ids=["own process", "hypercorn was there", "embedded"])
def test_http2_is_left_out_of_the_own_process_alone(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
