"""Model services that others wrote: @copilotkit/aimock speaks the APIs of Anthropic, OpenAI and Google on one port.

Owns starting and ending it, and its journal of what it was asked. Invariant: it listens on 127.0.0.1 only and is ended
by pid.
"""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .processes import free_port, wait_until

__all__ = ["Aimock", "serve_aimock"]


class Aimock:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def journal(self) -> list[dict[str, Any]]:
        """Every request so far: ``path``, ``headers``, ``body``."""
        with urllib.request.urlopen(f"{self.url}/__aimock/journal", timeout=5) as answer:
            entries: list[dict[str, Any]] = json.load(answer)
        return entries

    def alive(self) -> bool:
        try:
            self.journal()
        except (urllib.error.URLError, ConnectionError):
            return False
        return True


@contextmanager
def serve_aimock(node: Path, emulators: Path, folder: Path, fixtures: list[dict[str, Any]]) -> Iterator[Aimock]:
    """A server that answers as ``fixtures`` say."""
    said = folder / "fixtures.json"
    said.write_text(json.dumps({"fixtures": fixtures}))
    port = free_port()
    program = emulators / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    argv = [str(node), str(program), "-p", str(port), "-f", str(said), "--strict", "--log-level", "warn", "-c", "7"]
    with (folder / "aimock.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            server = Aimock(port)
            wait_until("aimock", server.alive, seconds=20, also=lambda: (folder / "aimock.log").read_text())
            yield server
        finally:
            process.terminate()
            process.wait(timeout=10)
