"""What tailscaled says, read: status, the notices of its bus, whois.

Pure: bytes in, values or `TailscaleUnreadable` out. Owns which members count (ipnstate.Status, ipn.Notify,
apitype.WhoIsResponse; recorded in tests/tailscale/golden). It must not know where the bytes come from.

Invariants: what is missing or of another type is nothing, never an exception of another kind; of a status only what is
asked for is kept; names come out without the trailing dot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import msgspec

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.policy.addresses import canonical_text
from openclaw_gateway.policy.tailnet import TailnetPerson
from openclaw_gateway.value import Value

__all__ = [
    "STATES",
    "NodeStatus",
    "Notice",
    "TailscaleUnreadable",
    "login_url",
    "read_config",
    "read_feature",
    "read_notice",
    "read_status",
    "read_whois",
]

STATES: Final = (
    "NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", "Running",
)  # fmt: skip
MAX_ADDRESSES: Final = 8
_FUNNEL_PORTS: Final = "https://tailscale.com/cap/funnel-ports?ports="


@attrs.define(eq=False)
class TailscaleUnreadable(GatewayError):
    """tailscaled said something that is not what it is documented to say."""

    what: str

    def __str__(self) -> str:
        return f"tailscaled's {self.what} cannot be read"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodeStatus(Value):
    """This machine as its daemon sees it. ``dns_name`` and ``addresses`` are empty where it is not in a tailnet."""

    state: str
    dns_name: str = ""
    addresses: tuple[str, ...] = ()
    node_id: str | None = None
    auth_url: str | None = None
    https: bool = False
    funnel: bool = False
    funnel_ports: tuple[int, ...] = ()

    @property
    def running(self) -> bool:
        return self.state == "Running"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Notice(Value):
    """One line of the bus. ``session``: only in the first."""

    session: str | None = None
    state: str | None = None
    url: str | None = None  # where a person logs in


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise TailscaleUnreadable(what) from exc
    if not isinstance(found, dict):
        raise TailscaleUnreadable(what)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _addresses(value: Any) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else ()
    found = (canonical_text(_text(text).partition("/")[0]) for text in texts[:MAX_ADDRESSES])
    return tuple(address for address in found if address != "unknown")


def login_url(value: Any) -> str | None:
    """An address that may be shown to a person: http(s), printable; None for anything else."""
    text = _text(value)
    if not text.isprintable() or len(text) > 512:
        return None
    try:
        return text if urlsplit(text).scheme in {"http", "https"} else None
    except ValueError:
        return None


def read_status(data: bytes) -> NodeStatus:
    """``GET status`` or ``tailscale status --json``. Raises `TailscaleUnreadable`."""
    found = _object(data, "status")
    state = _text(found.get("BackendState"))
    if state not in STATES:
        raise TailscaleUnreadable("status")
    me = _mapping(found.get("Self"))
    listed = me.get("Capabilities")
    caps = {*_mapping(me.get("CapMap")), *(cap for cap in (listed if isinstance(listed, list) else ()) if _text(cap))}
    return NodeStatus(
        state=state,
        dns_name=_text(me.get("DNSName")).rstrip(".").lower(),
        addresses=_addresses(found.get("TailscaleIPs") or me.get("TailscaleIPs")),
        node_id=_text(me.get("ID")) or None,
        auth_url=login_url(found.get("AuthURL")),
        https="https" in caps or bool(found.get("CertDomains")),
        funnel="funnel" in caps,
        funnel_ports=_ports(caps),
    )


def _ports(caps: set[str]) -> tuple[int, ...]:
    text = next((cap.removeprefix(_FUNNEL_PORTS) for cap in sorted(caps) if cap.startswith(_FUNNEL_PORTS)), "")
    return tuple(int(port) for port in text.split(",") if port.isdecimal())


def read_notice(line: bytes) -> Notice:
    """One line of ``watch-ipn-bus``. Raises `TailscaleUnreadable`."""
    found = _object(line, "notice")
    state = found.get("State")
    return Notice(
        session=_text(found.get("SessionID")) or None,
        state=STATES[state] if isinstance(state, int) and 0 <= state < len(STATES) else None,
        url=login_url(found.get("BrowseToURL")),
    )


def read_whois(data: bytes) -> TailnetPerson:
    """``GET whois`` or ``tailscale whois --json``. Raises `TailscaleUnreadable`."""
    found = _object(data, "whois")
    node, profile = _mapping(found.get("Node")), _mapping(found.get("UserProfile"))
    node_id = _text(node.get("StableID"))
    if not node_id:
        raise TailscaleUnreadable("whois")
    return TailnetPerson(
        node_id=node_id,
        login=_text(profile.get("LoginName")),
        name=_text(profile.get("DisplayName")),
        addresses=_addresses(node.get("Addresses")),
        tagged=bool(node.get("Tags")),
    )


def read_config(data: bytes) -> dict[str, Any]:
    """A serve configuration, whole: what we do not know in it belongs to others. Raises `TailscaleUnreadable`."""
    return {} if data.strip() in {b"", b"null"} else _object(data, "serve configuration")


def read_feature(data: bytes) -> str | None:
    """``query-feature``: where a person enables it; None where it is enabled, or no address is given."""
    return login_url(_object(data, "query-feature answer").get("URL"))
