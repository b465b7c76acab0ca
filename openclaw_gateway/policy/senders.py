"""Who may write to a message channel directly: one pure decision, with its reasons.

Owns what counts as a sender's identity on each channel (immutable ids only, V28), which facts decide about a message,
in which order, and how a pairing code is spelled. It must not know stores, clocks or adapters: the gate measures and
carries out.

Invariants: `decide` is total and default-deny; a display name is not even a parameter of it; what was paired in a
direct chat of one account counts in no group and in no other account (V27); nobody is challenged by a message that is
not live (PAIR-10); a denial of an operator's beats every way in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import attrs

from openclaw_gateway.value import Value

__all__ = [
    "CODE_ALPHABET",
    "CODE_LENGTH",
    "LIVE_AGE_MS",
    "MAX_PENDING_PER_ACCOUNT",
    "MAX_WRONG_CODES",
    "Context",
    "SenderQuestion",
    "SenderRules",
    "SenderVerdict",
    "SessionPolicy",
    "canonical_sender",
    "code_from",
    "decide",
    "plain_code",
    "read_allow_from",
]

Context = Literal["dm", "group"]
Policy = Literal["open", "pairing", "closed", "allowlist"]
SessionPolicy = Literal["allow", "deny", "pair"]
Kind = Literal["allow", "deny", "challenge", "silent"]

# Without 0, 1, I and O, which people mistake for one another; 32 letters, so that five bits make one.
CODE_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
CODE_LENGTH: Final = 8
MAX_PENDING_PER_ACCOUNT: Final = 3
MAX_WRONG_CODES: Final = 10
LIVE_AGE_MS: Final = 300_000  # what is older was waiting for us while we were away: history, whatever the adapter says
MAX_ID: Final = 128

_JID: Final = re.compile(r"(\d{5,20})(?::\d{1,3})?@s\.whatsapp\.net", re.ASCII)


def _telegram(text: str) -> str | None:
    number = re.sub(r"^(?:telegram|tg):", "", text, flags=re.IGNORECASE)
    return number if re.fullmatch(r"[1-9]\d{0,18}", number, re.ASCII) else None


def _discord(text: str) -> str | None:
    number = re.sub(r"^(?:discord|user):|^<@!?(?=\d+>$)|(?<=\d)>$", "", text, flags=re.IGNORECASE)
    return number if re.fullmatch(r"\d{15,21}", number, re.ASCII) else None


def _whatsapp(text: str) -> str | None:
    bare = re.sub(r"^whatsapp:", "", text, flags=re.IGNORECASE)
    if jid := _JID.fullmatch(bare):
        return f"+{jid[1]}"
    if re.fullmatch(r"\d{5,20}@lid", bare, re.ASCII):
        return bare
    number = re.sub(r"[ ()./-]", "", bare)
    return f"+{number.removeprefix('+')}" if re.fullmatch(r"\+?[1-9]\d{6,14}", number, re.ASCII) else None


def _opaque(text: str) -> str | None:
    # An unknown channel's ids cannot be told from names by their looks; its adapter gives ids, and only they compare.
    return text if 0 < len(text) <= MAX_ID and text.isprintable() and not any(map(str.isspace, text)) else None


_FORMS: Final = {"telegram": _telegram, "discord": _discord, "whatsapp": _whatsapp}
_EXAMPLES: Final[Mapping[str, str]] = {
    "telegram": "a Telegram user id is a number, such as 123456789 (a @name can change hands)",
    "discord": "a Discord user id is a number of 17 to 20 digits (a user name can change hands)",
    "whatsapp": "a WhatsApp id is a phone number with its country code, such as +4915112345678",
}


def canonical_sender(channel: str, text: str) -> str | None:
    """The one spelling of a sender's immutable id on ``channel``; None where ``text`` is no such id (a name, V28)."""
    return _FORMS.get(channel, _opaque)(text.strip()[: 2 * MAX_ID])


def read_allow_from(channel: str, entries: Iterable[str], *, policy: Policy) -> tuple[frozenset[str], tuple[str, ...]]:
    """The ids out of a configured ``allowFrom``, and what is wrong with the entries that are none (they match nobody).

    ``*`` (OpenClaw writes it next to ``open``) says nothing that the policy does not, and counts with no other.
    """
    ids: set[str] = set()
    faults: list[str] = []
    for entry in entries:
        if entry.strip() == "*":
            if policy != "open":
                faults.append(f"'*' lets nobody in with policy {policy}; to let everybody in, set the policy to open")
            continue
        known = canonical_sender(channel, entry)
        if known is not None:
            ids.add(known)
        else:
            why = _EXAMPLES.get(channel, "an id has no blanks")
            faults.append(f"'{_shown(entry)}' is not an id and lets nobody in: {why}")
    return frozenset(ids), tuple(faults)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:60])


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SenderRules(Value):
    """What the configuration says about one channel's direct messages; ``allow_from`` holds canonical ids."""

    policy: Policy = "pairing"
    allow_from: frozenset[str] = frozenset()
    enabled: bool = True


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SenderQuestion(Value):
    """Everything that decides about one message.

    ``session``: what was decided about this very (channel, account, sender); ``readable`` is False where that is not
    known. ``pending``: a request of theirs waits (or was turned down, and its time is not over). ``age_ms``: how long
    ago the message was sent.
    """

    channel: str
    context: Context
    sender_id: str | None
    rules: SenderRules
    readable: bool = True
    session: SessionPolicy | None = None
    pending: bool = False
    account_pending: int = 0
    live: bool = True
    age_ms: int = 0


@attrs.frozen(eq=False, repr=False)
class SenderVerdict(Value):
    """``challenge``: not in, and to be given a code; ``silent``: not in, and nothing is said."""

    kind: Kind
    trail: tuple[str, ...]


def decide(q: SenderQuestion) -> SenderVerdict:
    """May this message reach an agent? The trail names each rule that was looked at, the deciding one last."""
    trail: list[str] = []

    def verdict(kind: Kind, reason: str) -> SenderVerdict:
        return SenderVerdict(kind, (*trail, reason))

    if q.context != "dm":
        return verdict("deny", f"context {q.context}: pairing of direct messages counts in direct messages only")
    if q.sender_id is None:
        return verdict("deny", f"the sender has no immutable id of {q.channel}")
    if not q.rules.enabled:
        return verdict("deny", f"channels.{q.channel}.enabled is false")
    if not q.readable:
        return verdict("silent", "who is paired cannot be read right now")
    if q.session == "deny":
        return verdict("deny", "session policy of this sender: deny")
    policy = q.rules.policy
    if policy == "closed":
        return verdict("deny", f"channels.{q.channel}.dm.policy is closed")
    if q.session == "allow":
        return verdict("allow", "session policy of this sender: allow (paired)")
    if q.session == "pair":
        trail.append("session policy of this sender: pair")
    else:
        if q.sender_id in q.rules.allow_from:
            return verdict("allow", f"channels.{q.channel}.dm.allowFrom names this id")
        if policy == "open":
            return verdict("allow", f"channels.{q.channel}.dm.policy is open")
        trail.append(f"channels.{q.channel}.dm.policy is {policy}")
        if policy != "pairing":
            return verdict("deny", "allowFrom does not name this id")
    return _unpaired(q, trail)


def _unpaired(q: SenderQuestion, trail: list[str]) -> SenderVerdict:
    if q.pending:
        return SenderVerdict("silent", (*trail, "a request waits already; its code was sent once"))
    if not q.live:
        return SenderVerdict("silent", (*trail, "not a live message"))
    if q.age_ms > LIVE_AGE_MS:
        return SenderVerdict("silent", (*trail, f"sent more than {LIVE_AGE_MS // 60_000} minutes ago"))
    if q.account_pending >= MAX_PENDING_PER_ACCOUNT:
        return SenderVerdict("silent", (*trail, f"{MAX_PENDING_PER_ACCOUNT} requests wait on this account already"))
    return SenderVerdict("challenge", (*trail, "a stranger: a code is due"))


def code_from(digest: bytes) -> str:
    """Eight letters (40 bits) out of the first five bytes of ``digest``."""
    number = int.from_bytes(digest[:5], "big")
    return "".join(CODE_ALPHABET[number >> shift & 31] for shift in range(35, -1, -5))


def plain_code(text: str) -> str:
    """A code as a person may type it (small letters, blanks, dashes) in the one spelling that is compared."""
    return "".join(c for c in text.upper()[:64] if c not in " -\t")
