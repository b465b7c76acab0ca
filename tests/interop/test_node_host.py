"""OpenClaw's headless node host: it reaches hello, stays connected, and says goodbye (invocations are a later
issue).
"""

from __future__ import annotations

import signal
import subprocess
import threading
from typing import Any

import pytest

from .processes import TOKEN, GatewayProcess, Official, wait_until


@pytest.mark.deadline(120)
def test_node_host_connects_stays_and_leaves(official: Official, gateway_process: GatewayProcess) -> None:
    process = official.start_node_host(gateway_process.port, "--display-name", "Interop Node")
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        lines.extend(process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    list_nodes = ("nodes", "status", "--json", "--url", gateway_process.url, "--token", TOKEN)
    try:
        listed: list[dict[str, Any]] = []

        def connected() -> bool:
            assert process.poll() is None, "".join(lines)
            listed[:] = official.cli(*list_nodes).json["nodes"]
            return any(node["connected"] for node in listed)

        wait_until("the node is connected", connected, seconds=60, also=lambda: gateway_process.output()[-3000:])
        (node,) = listed
        assert node["displayName"] == "Interop Node"
        assert (node["clientId"], node["clientMode"], node["platform"]) == ("node-host", "node", "linux")
        # Paired by locality, but nothing it offers may be called before its surface is approved (V33).
        assert node["commands"] == []
        assert connected()
        assert process.poll() is None, "".join(lines)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
    assert not any("pairing required" in line for line in lines), lines
    wait_until(
        "the node is listed as gone",
        lambda: not any(node["connected"] for node in official.cli(*list_nodes).json["nodes"]),
        seconds=30,
    )
