"""Two machines and a cable between them: network namespaces joined by a veth pair, made and removed by the test.

Owns the namespaces, the cable and how a process or a socket gets into them. It must not know gateways or nodes.
Invariants: names carry this process's id, so two runs do not meet; `close` ends the namespaces whatever happened in
them; nothing outside of them is changed. Needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["Cable", "CableImpossible"]

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_PREFIX = 24


class CableImpossible(Exception):
    """This machine does not let us make a namespace; the text is what it said."""


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CableImpossible(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Cable:
    """``left`` and ``right`` are namespaces; `left_address` and `right_address` what they are called on the cable."""

    def __init__(self) -> None:
        self.left, self.right = f"ocg-{os.getpid()}-l", f"ocg-{os.getpid()}-r"
        self._left_end, self._right_end = f"cbl{os.getpid()}l", f"cbl{os.getpid()}r"
        self.left_address, self.right_address = "10.213.7.1", "10.213.7.2"

    def open(self) -> None:
        """Make both namespaces and plug the cable in. Raises `CableImpossible`; then `close` is still due."""
        for name in (self.left, self.right):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip(
            "-n", self.left, "link", "add", self._left_end, "type", "veth",
            "peer", "name", self._right_end, "netns", self.right,
        )  # fmt: skip
        for name, end, address in (
            (self.left, self._left_end, self.left_address),
            (self.right, self._right_end, self.right_address),
        ):
            _ip("-n", name, "addr", "add", f"{address}/{_PREFIX}", "dev", end)
            _ip("-n", name, "link", "set", end, "up")

    def close(self) -> None:
        """Remove both namespaces, and with them the cable."""
        for name in (self.left, self.right):
            subprocess.run(["ip", "netns", "del", name], stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def pull(self) -> None:
        """Unplug on the right: neither side is told, both just hear nothing more."""
        _ip("-n", self.right, "link", "set", self._right_end, "down")

    def plug(self) -> None:
        _ip("-n", self.right, "link", "set", self._right_end, "up")

    def break_right_to_left(self) -> None:
        """Half a cable: what the right side sends goes to a machine that is not there; what it is sent arrives."""
        _ip(
            "-n", self.right, "neigh", "replace", self.left_address, "lladdr", "02:00:00:00:00:63",
            "dev", self._right_end, "nud", "permanent",
        )  # fmt: skip

    def mend_right_to_left(self) -> None:
        _ip("-n", self.right, "neigh", "del", self.left_address, "dev", self._right_end)

    def inside(self, name: str, command: list[str]) -> list[str]:
        """The command line that runs ``command`` in that namespace, under one and the same pid."""
        return ["ip", "netns", "exec", name, *command]

    def run_in(self, name: str, function: Callable[[], _T]) -> _T:
        """Call ``function`` on a thread of its own that is in that namespace; sockets it makes stay there."""
        results: list[_T] = []
        errors: list[BaseException] = []

        def work() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            try:
                with Path(f"/run/netns/{name}").open("rb") as place:
                    if libc.setns(place.fileno(), _CLONE_NEWNET) != 0:
                        number = ctypes.get_errno()
                        raise OSError(number, os.strerror(number))
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]
