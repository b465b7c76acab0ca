"""Whose process holds the other end of a loopback connection: asked of the kernel (sock_diag(7)).

Every process of this host can reach a listener on 127.0.0.1 and write what tailscaled writes into a header (V36). The
kernel knows which user opened the connection, and tailscaled's own user is known from its unix socket. Owns that one
question; it must not know what is done with the answer.

Invariants: one datagram each way, nothing is waited for; what cannot be found out is None, and None is never the
right user; a socket that its process has closed already is nobody's. Linux says 0 for those, which is root and thus
tailscaled: whoever sends a request and closes at once would pass for it (sock_i_uid(); the inode then is 0 too).
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
from typing import Final

__all__ = ["connection_uid"]

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_ALL_STATES: Final = 0xFFFFFFFF
_NO_COOKIE: Final = 0xFFFFFFFF
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr
_OWNER: Final = struct.Struct("=II")  # uid, inode
_OWNER_AT: Final = 64  # inet_diag_msg: 4 bytes, the id (48), expires, rqueue, wqueue, then the uid and the inode


def connection_uid(peer: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """The user whose socket is connected from ``peer`` to ``ours`` on this host; None where nobody can say."""
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError, ValueError, struct.error):
        answer = _ask(_request(peer, ours))
        _, kind, _, _, _ = _HEADER.unpack_from(answer)
        if kind == _SOCK_DIAG_BY_FAMILY:
            uid, inode = _OWNER.unpack_from(answer, _HEADER.size + _OWNER_AT)
            return int(uid) if inode else None
    return None


def _request(peer: tuple[str, int], ours: tuple[str, int]) -> bytes:
    source, target = ipaddress.ip_address(peer[0]), ipaddress.ip_address(ours[0])
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    names = struct.pack("!HH16s16s", peer[1], ours[1], source.packed.ljust(16, b"\0"), target.packed.ljust(16, b"\0"))
    id_ = names + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + id_
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body


def _ask(request: bytes) -> bytes:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(0.2)
        netlink.sendto(request, (0, 0))
        return netlink.recv(4096)
