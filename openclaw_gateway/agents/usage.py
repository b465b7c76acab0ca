"""What runs used, in the shapes that OpenClaw's Usage page and `openclaw gateway usage-cost` read.

Owns sums over counted rows (`agents.counting`): by day, model, agent, channel and conversation. It must not know the
store, methods or who asks. Loaded when somebody asks.

Invariants: nobody is told a price: no price of any model is known here, so that every cost is 0 and every answer with
tokens is one of ``missingCostEntries``, which official clients show as an unknown cost; what is told of single
conversations has a bound (`MAX_DETAILS`), and beyond it they have their totals alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

from openclaw_gateway.agents.counting import QUARTER_MS
from openclaw_gateway.agents.records import Message, Session
from openclaw_gateway.agents.span import Span

__all__ = ["MAX_DETAILS", "MAX_LOGS", "MAX_POINTS", "NOBODY", "Counted", "cost_view", "log_view", "points_view",
           "sessions_view"]  # fmt: skip

K = TypeVar("K")

MAX_DETAILS: Final = 20_000  # rows by day, quarter and model in one answer, of all conversations together
MAX_POINTS: Final = 200
MAX_LOGS: Final = 1_000
MAX_LOG_CHARS: Final = 2_000
NOBODY: Final = '["unknown"]'  # OpenClaw's key for conversations whose creator is not known


class Counted(NamedTuple):
    """A row of ``agent_usage``; ``session_id`` is empty where the conversation was deleted."""

    quarter: int
    session_id: str
    model: str
    agent_id: str
    key: str
    asked: int
    answered: int
    errors: int
    counted: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    first_ms: int
    last_ms: int

    @property
    def tokens(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_write


class Tally:
    """A sum of rows."""

    __slots__ = (
        "answered", "asked", "cache_read", "cache_write", "errors", "first_ms", "input", "last_ms", "output",
        "unpriced",
    )  # fmt: skip

    def __init__(self) -> None:
        self.asked = self.answered = self.errors = 0
        self.input = self.output = self.cache_read = self.cache_write = 0
        self.first_ms, self.last_ms = 2**62, 0
        self.unpriced: Counter[str] = Counter()

    def add(self, row: Counted) -> None:
        self.asked += row.asked
        self.answered += row.answered
        self.errors += row.errors
        self.input += row.input
        self.output += row.output
        self.cache_read += row.cache_read
        self.cache_write += row.cache_write
        self.first_ms = min(self.first_ms, row.first_ms)
        self.last_ms = max(self.last_ms, row.last_ms)
        if row.counted:
            self.unpriced[row.model] += row.counted

    @property
    def tokens(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_write

    def totals(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "input": self.input,
            "output": self.output,
            "cacheRead": self.cache_read,
            "cacheWrite": self.cache_write,
            "totalTokens": self.tokens,
            "totalCost": 0,
            "inputCost": 0,
            "outputCost": 0,
            "cacheReadCost": 0,
            "cacheWriteCost": 0,
            "missingCostEntries": self.unpriced.total(),
        }
        named = {model: count for model, count in self.unpriced.items() if model}
        return {**out, "missingCostByModel": named} if named else out

    def messages(self) -> dict[str, int]:
        """Tools are the agent's own affair here: none is seen."""
        return {
            "total": self.asked + self.answered,
            "user": self.asked,
            "assistant": self.answered,
            "toolCalls": 0,
            "toolResults": 0,
            "errors": self.errors,
        }


def cost_view(rows: Iterable[Counted], span: Span, now_ms: int) -> dict[str, Any]:
    """The result of ``usage.cost``."""
    whole, days = Tally(), _Sums[str]()
    for row in rows:
        whole.add(row)
        days.add(span.day(row.quarter * QUARTER_MS), row)
    daily = [{"date": day, **tally.totals()} for day, tally in sorted(days.items())]
    return {"updatedAt": now_ms, "days": span.days, "daily": daily, "totals": whole.totals()}


def sessions_view(
    rows: Sequence[Counted],
    span: Span,
    now_ms: int,
    *,
    sessions: Callable[[str], Session | None],
    family: bool,
    limit: int,
    context_weight: bool = False,
) -> dict[str, Any]:
    """The result of ``sessions.usage``. ``family``: a conversation with all transcripts that it had is one row, else
    each transcript is one. Totals count deleted conversations, too."""
    found = _Found(span)
    groups: dict[str, list[Counted]] = {}
    for row in rows:
        found.add(row, sessions(row.key) if row.key else None)
        if row.session_id:
            groups.setdefault(row.key if family else row.session_id, []).append(row)
    newest = sorted(groups.values(), key=lambda group: -max(row.last_ms for row in group))
    left = MAX_DETAILS
    shown = []
    for group in newest[:limit]:
        left -= len(group) * 4  # each row is at most one of each kind of detail
        details = left >= 0
        extra = {"contextWeight": None} if context_weight else {}
        shown.append({**_session(group, sessions(group[0].key), family=family), **extra,
                      "usage": _usage(group, span, details=details)})  # fmt: skip
    return {
        "updatedAt": now_ms,
        "startDate": span.day(span.start_ms),
        "endDate": span.day(span.end_ms),
        "sessions": shown,
        "totals": found.whole.totals(),
        "aggregates": found.aggregates(newest),
        "creatorOptions": [{"key": NOBODY}] if newest else [],
    }


def _session(group: Sequence[Counted], session: Session | None, *, family: bool) -> dict[str, Any]:
    last = max(group, key=lambda row: row.last_ms)
    current = session is not None and (family or last.session_id == session.session_id)
    out: dict[str, Any] = {
        # A transcript that a reset left behind has no key: OpenClaw makes one of its id.
        "key": last.key if current or family else f"agent:{last.agent_id}:{last.session_id}",
        "sessionId": session.session_id if current and session is not None else last.session_id,
        "scope": "family" if family else "instance",
        "updatedAt": session.updated_at_ms if current and session is not None else last.last_ms,
        "agentId": last.agent_id,
        "creatorKey": NOBODY,
        "hasContextWeight": False,
    }
    if family:
        ids = sorted({row.session_id for row in group})
        out |= {"sessionFamilyKey": last.key, "currentSessionId": out["sessionId"], "includedSessionIds": ids,
                "historicalInstanceCount": len(ids)}  # fmt: skip
    if current and session is not None:
        out |= {"label": session.label or session.key.split(":", 2)[-1], "chatType": session.chat_type}
        if session.channel is not None:
            out["channel"] = session.channel
        if session.model is not None:
            out["modelOverride"] = session.model
    model = max((row for row in group if row.counted), key=lambda row: row.last_ms, default=None)
    return {**out, **_ref(model.model)} if model is not None else out


def _usage(group: Sequence[Counted], span: Span, *, details: bool) -> dict[str, Any]:
    whole, days, models = Tally(), _Sums[str](), _Sums[str]()
    quarters, by_day = _Sums[int](), _Sums[tuple[str, str]]()
    for row in group:
        whole.add(row)
        day = span.day(row.quarter * QUARTER_MS)
        days.add(day, row)
        if row.counted:
            models.add(row.model, row)
        if details:
            quarters.add(row.quarter, row)
            if row.counted:
                by_day.add((day, row.model), row)
    out: dict[str, Any] = {
        "sessionId": group[0].session_id,
        "firstActivity": whole.first_ms,
        "lastActivity": whole.last_ms,
        "durationMs": whole.last_ms - whole.first_ms,
        "messageCounts": whole.messages(),
        "modelUsage": _by_model(models),
        **whole.totals(),
    }
    if not details:
        return out
    daily = sorted(days.items())
    return {
        **out,
        "activityDates": [day for day, _ in daily],
        "dailyBreakdown": [{"date": day, "tokens": one.tokens, "cost": 0, **one.totals()} for day, one in daily],
        "dailyMessageCounts": [{"date": day, **one.messages()} for day, one in daily],
        "dailyModelUsage": _model_days(by_day),
        "utcQuarterHourMessageCounts": [{**_place(at), **one.messages()} for at, one in sorted(quarters.items())],
        "utcQuarterHourTokenUsage": [
            {
                **_place(at),
                "input": one.input,
                "output": one.output,
                "cacheRead": one.cache_read,
                "cacheWrite": one.cache_write,
                "totalTokens": one.tokens,
                "totalCost": 0,
            }
            for at, one in sorted(quarters.items())
        ],
    }


class _Sums(dict[K, Tally]):
    def add(self, name: K, row: Counted) -> None:
        found = self.get(name)
        if found is None:
            found = self[name] = Tally()
        found.add(row)


class _Found:
    """The sums over all conversations of a span."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.whole = Tally()
        self._days, self._models = _Sums[str](), _Sums[str]()
        self._agents, self._channels = _Sums[str](), _Sums[str]()
        self._model_days = _Sums[tuple[str, str]]()

    def add(self, row: Counted, session: Session | None) -> None:
        self.whole.add(row)
        day = self._span.day(row.quarter * QUARTER_MS)
        self._days.add(day, row)
        self._agents.add(row.agent_id, row)
        if session is not None and session.channel is not None:
            self._channels.add(session.channel, row)
        if row.counted:
            self._models.add(row.model, row)
            self._model_days.add((day, row.model), row)

    def aggregates(self, groups: Sequence[Sequence[Counted]]) -> dict[str, Any]:
        providers = _Sums[str]()
        merged: dict[str, int] = {}
        for model, tally in self._models.items():
            name = _ref(model).get("modelProvider", "unknown")
            merged[name] = merged.get(name, 0) + tally.unpriced.total()
            _merge(providers, name, tally)
        daily = sorted(self._days.items())
        longest = max((max(row.last_ms for row in one) - min(row.first_ms for row in one) for one in groups), default=0)
        return {
            "sessionCount": len(groups),
            **({"longestSessionDurationMs": longest} if longest > 0 else {}),
            "messages": self.whole.messages(),
            "tools": {"totalCalls": 0, "uniqueTools": 0, "tools": []},
            "byModel": _by_model(self._models),
            "byProvider": [
                {"provider": name, "count": merged[name], "totals": one.totals()} for name, one in _ranked(providers)
            ],
            "byAgent": [{"agentId": name, "totals": one.totals()} for name, one in _ranked(self._agents)],
            "byCreator": [self._nobody(groups)] if groups else [],
            "byChannel": [{"channel": name, "totals": one.totals()} for name, one in _ranked(self._channels)],
            "costDaily": [{"date": day, **one.totals()} for day, one in daily],
            "dailyLatency": [],
            "modelDaily": _model_days(self._model_days),
            "daily": [
                {
                    "date": day,
                    "tokens": one.tokens,
                    "cost": 0,
                    "messages": one.asked + one.answered,
                    "toolCalls": 0,
                    "errors": one.errors,
                }
                for day, one in daily
            ],
        }

    def _nobody(self, groups: Sequence[Sequence[Counted]]) -> dict[str, Any]:
        """All of it: who began a conversation is not kept."""
        day = self._span.day
        dates = Counter(tuple(sorted({day(row.quarter * QUARTER_MS) for row in group})) for group in groups)
        return {
            "key": NOBODY,
            "totals": self.whole.totals(),
            "sessionCount": len(groups),
            "daily": [{"date": date, **one.totals()} for date, one in sorted(self._days.items())],
            "sessionActivity": [{"dates": list(days), "sessionCount": count} for days, count in sorted(dates.items())],
        }


def _merge(sums: _Sums[str], name: str, other: Tally) -> None:
    into = sums.setdefault(name, Tally())
    for number in ("asked", "answered", "errors", "input", "output", "cache_read", "cache_write"):
        setattr(into, number, getattr(into, number) + getattr(other, number))
    into.unpriced.update(other.unpriced)


def _ranked(sums: Mapping[str, Tally]) -> list[tuple[str, Tally]]:
    return sorted(sums.items(), key=lambda item: (-item[1].tokens, item[0]))


def _ref(model: str) -> dict[str, str]:
    """``provider/model`` as two members; what an agent left out is left out."""
    provider, slash, name = model.partition("/")
    if not slash:
        return {"model": model} if model else {}
    return {"modelProvider": provider, "model": name}


def _named(model: str) -> dict[str, str]:
    found = _ref(model)
    return {"provider": found.get("modelProvider", "unknown"), "model": found.get("model", "unknown")}


def _by_model(models: Mapping[str, Tally]) -> list[dict[str, Any]]:
    return [{**_named(model), "count": one.unpriced.total(), "totals": one.totals()} for model, one in _ranked(models)]


def _model_days(days: Mapping[tuple[str, str], Tally]) -> list[dict[str, Any]]:
    return [
        {"date": day, **_named(model), "tokens": one.tokens, "cost": 0, "count": one.unpriced.total()}
        for (day, model), one in sorted(days.items())
    ]


def _place(quarter: int) -> dict[str, Any]:
    day = datetime.fromtimestamp(quarter * QUARTER_MS / 1000, UTC).date().isoformat()
    return {"date": day, "quarterIndex": quarter % 96}


def points_view(session_id: str, messages: Iterable[Message]) -> dict[str, Any]:
    """The result of ``sessions.usage.timeseries``: answers with tokens, oldest first, at most `MAX_POINTS` sums."""
    used = [(one.at_ms, one.usage) for one in messages if one.usage is not None]
    step = max(1, -(-len(used) // MAX_POINTS))
    points, told = [], 0
    for first in range(0, len(used), step):
        part = used[first : first + step]
        tokens = sum(use.total for _, use in part)
        told += tokens
        points.append({
            "timestamp": part[-1][0],
            "input": sum(use.input for _, use in part),
            "output": sum(use.output for _, use in part),
            "cacheRead": sum(use.cache_read for _, use in part),
            "cacheWrite": sum(use.cache_write for _, use in part),
            "totalTokens": tokens,
            "cost": 0,
            "cumulativeTokens": told,
            "cumulativeCost": 0,
        })  # fmt: skip
    return {"sessionId": session_id, "points": points}


def log_view(messages: Iterable[Message]) -> dict[str, Any]:
    """The result of ``sessions.usage.logs``."""
    logs = []
    for one in messages:
        text = one.text.strip()
        if not text or one.role == "system":
            continue
        shown = text if len(text) <= MAX_LOG_CHARS else text[:MAX_LOG_CHARS] + "…"
        used = {"tokens": one.usage.total} if one.usage is not None else {}
        logs.append({"timestamp": one.at_ms, "role": one.role, "content": shown, **used})
    return {"logs": logs}
