"""HTTP/2 is left out of the gateway's own process, and of no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.program import ROOT

LEAN = """
import sys
from openclaw_gateway.cli.lean import leave_out_http2
leave_out_http2()
from openclaw_gateway.app import open_gateway
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"h2", "hpack", "hyperframe", "wsproto"}, loaded
import h2.connection  # whoever wants it gets the real one
assert h2.connection.H2Connection
"""
EMBEDDED = """
import hypercorn.protocol
from openclaw_gateway.cli.lean import leave_out_http2
leave_out_http2()
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
