"""The named states of the exposure, what each means to a person, and how long to wait in it.

Pure: what the daemon or its command line answered in, a `Condition` out. Owns the words and the fixes (TS-4, TS-5) and
one waiting policy per state. It must not know who asks.

Invariants: every state but ``off`` and ``serving`` has a reason and one thing to do; nothing that is suggested is done
by us, sudo least of all; a text that we do not know is quoted, clipped and escaped, never guessed at.
"""

from __future__ import annotations

import json
import re
from typing import Final, Literal

import attrs

from openclaw_gateway.tailscale.protocol import NodeStatus, login_url
from openclaw_gateway.value import Value

__all__ = ["STATES", "WAITS", "Condition", "of_answer", "of_command", "of_node", "off", "serving"]

State = Literal[
    "off", "waiting", "missing", "unreachable", "needs-login", "needs-approval", "stopped", "other-user",
    "not-operator", "https-not-enabled", "funnel-not-allowed", "conflict", "lost", "failed", "serving",
]  # fmt: skip
MAX_QUOTED: Final = 200
STATUS: Final = "tailscale status"
# Seconds: the first wait and the longest. States that a person ends are looked at again soon after he has.
WAITS: Final[dict[str, tuple[float, float]]] = {
    "waiting": (2.0, 2.0),
    "missing": (2.0, 30.0),
    "unreachable": (1.0, 30.0),
    "needs-login": (2.0, 30.0),
    "needs-approval": (2.0, 30.0),
    "stopped": (2.0, 30.0),
    "other-user": (5.0, 60.0),
    "not-operator": (5.0, 30.0),
    "https-not-enabled": (5.0, 30.0),
    "funnel-not-allowed": (5.0, 60.0),
    "conflict": (5.0, 30.0),
    "lost": (0.5, 30.0),
    "failed": (1.0, 60.0),
    "serving": (30.0, 30.0),
    "off": (30.0, 30.0),
}
STATES: Final = tuple(WAITS)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Condition(Value):
    """How the exposure is. ``url``: what is served, or where a person has to go; ``fix``: one command, or one step."""

    state: State
    reason: str = ""
    fix: str | None = None
    url: str | None = None


off: Final = Condition(state="off")


def serving(url: str, *, funnel: bool) -> Condition:
    where = "to the whole internet" if funnel else "to the tailnet"
    return Condition(state="serving", reason=f"open {where}", url=url)


def _quoted(text: str) -> str:
    line = " ".join(text.split())[:MAX_QUOTED]
    return "".join(char if char.isprintable() else "?" for char in line)


def of_node(node: NodeStatus, *, funnel: bool, port: int) -> Condition | None:
    """Why this machine cannot serve right now; None: it can."""
    match node.state:
        case "Running":
            return _of_running(node, funnel=funnel, port=port)
        case "NeedsLogin":
            return needs_login(node.auth_url)
        case "NeedsMachineAuth":
            reason = "an admin of the tailnet has not approved this machine yet"
            return Condition(state="needs-approval", reason=reason, fix="https://login.tailscale.com/admin/machines")
        case "Stopped":
            return Condition(state="stopped", reason="tailscale is stopped", fix="tailscale up")
        case "InUseOtherUser":
            reason = "another user of this host is logged in to tailscale"
            return Condition(state="other-user", reason=reason, fix="tailscale up")
        case _:
            return Condition(state="waiting", reason="tailscale is starting", fix=STATUS)


def needs_login(url: str | None) -> Condition:
    return Condition(
        state="needs-login", reason="this machine is logged out of its tailnet", fix="tailscale up", url=url
    )


def _of_running(node: NodeStatus, *, funnel: bool, port: int) -> Condition | None:
    if not node.dns_name:
        return Condition(state="waiting", reason="this machine has no name in its tailnet yet", fix=STATUS)
    if not node.https:
        return https_not_enabled(None)
    if not funnel:
        return None
    if not node.funnel:
        reason = "the tailnet's policy does not let this machine use the funnel"
        return Condition(state="funnel-not-allowed", reason=reason, fix="https://tailscale.com/s/no-funnel")
    if node.funnel_ports and port not in node.funnel_ports:
        allowed = ", ".join(map(str, node.funnel_ports))
        return Condition(
            state="funnel-not-allowed",
            reason=f"port {port} is not allowed for the funnel; allowed: {allowed}",
            fix=f"openclaw config set gateway.tailscale.port {node.funnel_ports[0]}",
        )
    return None


def https_not_enabled(url: str | None) -> Condition:
    return Condition(
        state="https-not-enabled",
        reason="HTTPS certificates are not enabled for the tailnet",
        fix="open the URL and enable it" if url else "https://tailscale.com/s/https",
        url=url,
    )


def not_operator() -> Condition:
    reason = "tailscaled does not let this user change what is served"
    return Condition(state="not-operator", reason=reason, fix="sudo tailscale set --operator=$USER")


def conflict(what: str, port: int) -> Condition:
    other = 8443 if port != 8443 else 10000
    return Condition(state="conflict", reason=what, fix=f"openclaw config set gateway.tailscale.port {other}")


def missing(path: str) -> Condition:
    return Condition(
        state="missing",
        reason=f"tailscaled does not listen ({path})",
        fix="install it (https://tailscale.com/download), or: sudo systemctl start tailscaled",
    )


def unreachable(why: str) -> Condition:
    return Condition(state="unreachable", reason=_quoted(why), fix="sudo systemctl restart tailscaled")


def lost(why: str) -> Condition:
    return Condition(state="lost", reason=why, fix="tailscale serve status --json")


def failed(text: str) -> Condition:
    return Condition(state="failed", reason=_quoted(text) or "no reason given", fix=STATUS)


_CONFLICT: Final = re.compile(
    r"(?:foreground |background )?(?:listener already exists for port \d+|"
    r"(?:foreground|background configuration) already exists under this port|"
    r'want to serve "[a-z-]+", but port \d+ is already serving "[a-z-]+")'
)
_URL: Final = re.compile(r"https?://[^\s\x00-\x1f]{1,500}")


def of_answer(status: int, body: bytes, *, port: int) -> Condition:
    """What an answer of the LocalAPI that is not 200 means."""
    text = body[:4096].decode("utf-8", "replace").strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        text = str(found.get("error", text)) if isinstance(found, dict) else text
    if status == 403:
        return not_operator() if "denied" in text else failed(text)
    if status == 503:
        return Condition(state="waiting", reason="tailscaled is starting", fix=STATUS)
    return _of_text(text, port=port)


def _of_text(text: str, *, port: int) -> Condition:
    found = _CONFLICT.search(text)
    if found is not None:
        return conflict(found[0], port)
    if "netMap is nil" in text or "SelfNode is nil" in text:
        return Condition(state="waiting", reason="tailscale is starting", fix=STATUS)
    return failed(text)


_SAID: Final[tuple[tuple[str, Condition], ...]] = (
    ("Access denied", not_operator()),
    ("serve config denied", not_operator()),
    ("Tailscale is stopped.", Condition(state="stopped", reason="tailscale is stopped", fix="tailscale up")),
    ("Tailscale is starting", Condition(state="waiting", reason="tailscale is starting", fix=STATUS)),
    (
        "not yet approved",
        Condition(
            state="needs-approval",
            reason="an admin of the tailnet has not approved this machine yet",
            fix="https://login.tailscale.com/admin/machines",
        ),
    ),
    ("503 Service Unavailable", Condition(state="waiting", reason="tailscaled is starting", fix=STATUS)),
    ("HTTPS must be enabled", https_not_enabled(None)),
    (
        '"funnel" node attribute not set',
        Condition(
            state="funnel-not-allowed",
            reason="the tailnet's policy does not let this machine use the funnel",
            fix="https://tailscale.com/s/no-funnel",
        ),
    ),
)


def of_command(out: str, err: str, *, port: int) -> Condition:
    """What the command line means by what it printed before it ended, or while it waits for a person."""
    text = f"{err}\n{out}"
    if "Failed to connect to local Tailscale daemon" in text or "failed to connect to local tailscale" in text.lower():
        gone = "no such file" in text or "connection refused" in text
        return missing("no socket") if gone else unreachable(err)
    url = _URL.search(out)
    if "is not enabled on your tailnet" in text:
        return https_not_enabled(login_url(url[0]) if url else None)
    if "Logged out." in text or "Log in at:" in text:
        return needs_login(login_url(url[0]) if url else None)
    if "is not allowed for funnel" in text:
        return Condition(
            state="funnel-not-allowed",
            reason=_quoted(err),
            fix="openclaw config set gateway.tailscale.port 443",
        )
    for words, condition in _SAID:
        if words in text:
            return condition
    return _of_text(err.strip() or out.strip(), port=port)
