"""The dashboard's files: a folder of static files (OpenClaw's official Control UI, or your own), served on the port.

Owns which file a path names, its type, its cache and its content security policy. It must not know what the page does:
the page speaks the wire like every other client and is admitted like one.

Invariants: nothing outside the folder leaves, by whatever link or name (V7): a path is followed to the end and must
still lie inside; names that begin with a dot are not there; a page may run its own scripts and the inline ones in
the folder's index (by their hash), and may connect to this origin only; files are read on a thread, at most four at a
time and 32 MiB each (a cold disk must not stall the loop).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.server.gatekeeper import Grant
from openclaw_gateway.server.http import HttpApp, HttpReply, HttpRequest, Route, json_reply, text_reply
from openclaw_gateway.value import Value

__all__ = ["ControlUi"]

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
READERS: Final = 4
CONFIG_PATH: Final = "/control-ui-config.json"
_TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".mjs": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".json": b"application/json",
    ".webmanifest": b"application/manifest+json",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
    ".jpg": b"image/jpeg",
    ".webp": b"image/webp",
    ".avif": b"image/avif",
    ".gif": b"image/gif",
    ".ico": b"image/x-icon",
    ".woff2": b"font/woff2",
    ".woff": b"font/woff",
    ".ttf": b"font/ttf",
    ".wasm": b"application/wasm",
    ".txt": b"text/plain; charset=utf-8",
    ".md": b"text/plain; charset=utf-8",
    ".map": b"application/json",
    ".wav": b"audio/wav",
    ".mp3": b"audio/mpeg",
}
_INLINE: Final = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_HASHED_NAME: Final = re.compile(r"-[A-Za-z0-9_-]{8,}\.[a-z0-9]+$")

log = get_logger("dashboard")


@attrs.frozen(eq=False, repr=False)
class _File(Value):
    data: bytes
    tag: bytes


class ControlUi:
    """The routes of the dashboard. `configure` says from which folder; None: there is none."""

    def __init__(self, http: HttpApp, *, version: str) -> None:
        self._http = http
        self._version = version
        self._root: Path | None = None
        self._policy = b""
        self._limiter = trio.CapacityLimiter(READERS)
        self._plain_page = http.routes.get("/")

    def configure(self, root: Path | None) -> None:
        """Serve this folder from now on. A folder without an ``index.html`` is a fault in the log, and no dashboard."""
        found = root.resolve() if root is not None else None
        try:
            index = (found / "index.html").read_bytes() if found is not None else b""
        except OSError as exc:
            fix = "openclaw config set gateway.controlUi.root <the folder that holds index.html>"
            log.error("dashboard cannot be served", directory=str(root), error=str(exc), fix=fix)
            found, index = None, b""
        self._root = found
        self._policy = _policy(index)
        routes = self._http.routes
        if found is None:
            self._http.fallback = None
            routes.pop(CONFIG_PATH, None)
            if self._plain_page is not None:
                routes["/"] = self._plain_page
            return
        page = Route(methods=("GET", "HEAD"), handler=self._serve, needs_admission=False)
        routes["/"] = page
        routes[CONFIG_PATH] = Route(methods=("GET", "HEAD"), handler=self._config, needs_admission=False)
        self._http.fallback = page

    async def _config(self, request: HttpRequest, grant: Grant | None) -> HttpReply:
        body: dict[str, Any] = {
            "basePath": "",
            "assistantName": "Assistant",
            "assistantAvatar": "A",
            "assistantAgentId": "main",
        }
        if request.peer.direct_loopback:
            body["serverVersion"] = self._version
        return json_reply(200, body)

    async def _serve(self, request: HttpRequest, grant: Grant | None) -> HttpReply:
        root = self._root
        if root is None:
            return text_reply(404, "Not Found")
        name = request.path.lstrip("/") or "index.html"
        async with self._limiter:
            file = await trio.to_thread.run_sync(_read, root, name)
            if file is None and _wants_page(request, name):
                # The page's own router knows the path.
                name = "index.html"
                file = await trio.to_thread.run_sync(_read, root, name)
        if file is None:
            return text_reply(404, "Not Found")
        policy = self._policy
        if name == "index.html":
            # Of the page as it is now: an update of the folder brings other inline scripts.
            policy = await trio.to_thread.run_sync(_policy, file.data)
            file = attrs.evolve(file, data=_based(file.data))
        forever = name.startswith("assets/") and _HASHED_NAME.search(name) is not None
        headers = (
            (b"etag", file.tag),
            (b"cache-control", b"public, max-age=31536000, immutable" if forever else b"no-cache"),
            (b"content-security-policy", policy),
        )
        kind = _TYPES.get(Path(name).suffix.lower(), b"application/octet-stream")
        if request.headers.get(b"if-none-match") == file.tag:
            return HttpReply(status=304, headers=headers, content_type=kind)
        return HttpReply(status=200, body=file.data, headers=headers, content_type=kind)


def _based(index: bytes) -> bytes:
    """The page with its relative addresses counted from the top, whatever path it is asked under."""
    if b"<base " in index.lower():
        return index
    return index.replace(b"<head>", b'<head><base href="/" />', 1)


def _wants_page(request: HttpRequest, name: str) -> bool:
    accept = request.headers.get(b"accept", b"*/*")
    return "." not in name.rsplit("/", 1)[-1] and (b"text/html" in accept or b"*/*" in accept)


def _read(root: Path, name: str) -> _File | None:
    """The file of that name inside ``root``; None for everything else. On a thread."""
    if any(part.startswith(".") for part in name.split("/")):
        return None
    try:
        path = (root / name).resolve(strict=True)
        if not path.is_relative_to(root):
            return None
        steps = path.relative_to(root).parts
        if any(step.startswith(".") for step in steps):
            return None  # a link to a hidden file names it too
        with os.fdopen(_open_below(root, steps), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_FILE_BYTES:
                return None
            return _File(file.read(MAX_FILE_BYTES), b'"%x-%x"' % (facts.st_mtime_ns, facts.st_size))
    except (OSError, ValueError, RuntimeError):
        return None


def _open_below(root: Path, steps: tuple[str, ...]) -> int:
    """Open a file step by step, none of which may be a link by now: whoever swaps a folder for a link between the look
    and the opening gets an `OSError`."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for number, step in enumerate(steps, 1):
        kind = os.O_NONBLOCK if number == len(steps) else os.O_DIRECTORY
        try:
            inner = os.open(step, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=here)
        finally:
            os.close(here)
        here = inner
    return here


def _policy(index: bytes) -> bytes:
    """The content security policy of a page: its own origin, and its inline scripts by hash (CSP level 3)."""
    hashes = [b"'sha256-" + base64.b64encode(hashlib.sha256(found).digest()) + b"'" for found in _INLINE.findall(index)]
    return b"; ".join(
        (
            b"default-src 'self'",
            b" ".join((b"script-src 'self' 'wasm-unsafe-eval'", *hashes)),
            b"style-src 'self' 'unsafe-inline'",
            b"img-src 'self' data: blob:",
            b"media-src 'self' data: blob:",
            b"font-src 'self' data:",
            b"connect-src 'self' data:",
            b"worker-src 'self' blob:",
            b"manifest-src 'self'",
            b"object-src 'none'",
            b"base-uri 'self'",
            b"form-action 'none'",
            b"frame-ancestors 'none'",
        )
    )
