"""Who a request from the tailnet is from, and whether that may stand for a credential (TS-6).

Pure: what tailscaled wrote into the headers, what its whois says about the address, and which node this is, in; the
person or a constant reason out. It must not know how whois is asked, nor what an identity opens (`policy.admission`).

Invariants: a claim is read only from a connection that came in on the listener that serve was pointed at, never from
the ordinary one (V36, V37), and never behind the funnel (C6); the name in the header counts only where whois gives the
same login for the address; this host itself is nobody (V58: whatever runs here could dial the node's own address); a
tagged machine is no person; whatever came twice names nobody.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from openclaw_gateway.policy.addresses import canonical_text, is_loopback
from openclaw_gateway.policy.network import Provenance
from openclaw_gateway.policy.vouching import Vouched, scopes_of
from openclaw_gateway.value import Value

__all__ = ["TailnetClaim", "TailnetPerson", "judge_claim", "read_claim", "refused_claim"]

MAX_NAME: Final = 256
_WORD: Final = re.compile(r"=\?utf-8\?([qQbB])\?([^?\s]{0,400})\?=(?:\s+(?==\?))?", re.IGNORECASE)
_WANTED: Final = frozenset(
    {
        b"tailscale-user-login", b"tailscale-user-name", b"tailscale-funnel-request", b"x-forwarded-for",
        b"x-forwarded-host", b"x-forwarded-proto",
    }
)  # fmt: skip


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TailnetClaim(Value):
    """What tailscaled said about a request: from which tailnet address it came, and whose machine that is."""

    address: str
    login: str
    name: str = ""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TailnetPerson(Value):
    """What whois says about an address: the machine, and whose it is."""

    node_id: str
    login: str
    name: str = ""
    addresses: tuple[str, ...] = ()
    tagged: bool = False


def read_claim(headers: Iterable[tuple[bytes, bytes]], provenance: Provenance) -> TailnetClaim | str | None:
    """The claim of a request; a constant reason where it came through tailscaled and makes none; None where it did not
    come that way (then its headers are anybody's).
    """
    if provenance == "tailscale-funnel":
        return "tailscale_funnel"
    if provenance != "tailscale-serve":
        return None
    seen: dict[bytes, list[str]] = {}
    for raw, value in headers:
        name = raw.lower()
        if name in _WANTED:
            seen.setdefault(name, []).append(value.decode("latin-1").strip())
    if b"tailscale-funnel-request" in seen:
        return "tailscale_funnel"
    address = canonical_text(_single(seen, b"x-forwarded-for") or "")
    proxied = _single(seen, b"x-forwarded-proto") == "https" and _single(seen, b"x-forwarded-host")
    if address == "unknown" or is_loopback(address) or not proxied:
        return "tailscale_proxy_missing"
    if b"tailscale-user-login" not in seen:
        return "tailscale_user_missing"
    login = decode_words(_single(seen, b"tailscale-user-login") or "")
    if not login:
        return "tailscale_user_ambiguous"
    return TailnetClaim(address=address, login=login, name=decode_words(_single(seen, b"tailscale-user-name") or ""))


def _single(seen: Mapping[bytes, list[str]], name: bytes) -> str | None:
    values = seen.get(name, ())
    return values[0] if len(values) == 1 else None


def decode_words(text: str) -> str:
    """RFC 2047 words, which tailscaled writes for names that are not ASCII, as text; "" for what cannot be shown."""

    def decoded(found: re.Match[str]) -> str:
        raw = found[2].encode("ascii", "replace")
        data = binascii.a2b_qp(raw, header=True) if found[1] in "qQ" else binascii.a2b_base64(raw)
        return data.decode("utf-8")

    try:
        plain = _WORD.sub(decoded, text[: 4 * MAX_NAME])
    except (ValueError, UnicodeDecodeError):
        return ""
    return plain if len(plain) <= MAX_NAME and plain.isprintable() else ""


def judge_claim(
    claim: TailnetClaim,
    person: TailnetPerson | None,
    *,
    own_node: str | None,
    own_addresses: frozenset[str],
    identity_scopes: Mapping[str, tuple[str, ...]],
) -> Vouched:
    """``person``: what whois says about the claim's address; None: nobody has it. Where this node is not known
    (``own_node`` None), nobody is believed, because it could be this host."""
    if person is None:
        return refused_claim("tailscale_whois_failed")
    if own_node is None:
        return refused_claim("tailscale_unavailable")
    if person.node_id == own_node or claim.address in own_addresses:
        return refused_claim("tailscale_self")
    if person.tagged:
        return refused_claim("tailscale_tagged")
    if not person.login or person.login.lower() != claim.login.lower():
        return refused_claim("tailscale_user_mismatch")
    return Vouched(source="tailscale", user=person.login, scopes=scopes_of(person.login, identity_scopes))


def refused_claim(reason: str) -> Vouched:
    return Vouched(source="tailscale", reason=reason)
