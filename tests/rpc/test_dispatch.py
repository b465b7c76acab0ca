"""How a call runs: deadlines, concurrency, idempotency and its caps, results as JSON (design rules 5, 6, 8)."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from openclaw_gateway import CallError
from openclaw_gateway.rpc import dispatch
from openclaw_gateway.rpc.dispatch import KEY_SECONDS, MAX_KEYS, Dispatcher, to_wire
from openclaw_gateway.rpc.table import MethodSpec, MethodTable

READ = "operator.read"


@attrs.frozen(kw_only=True)
class Caller:
    """A `CallContext` that nobody stands behind."""

    principal: str = "token:operator"
    conn_id: str = "conn"
    role: str = "operator"
    scopes: frozenset[str] = frozenset({READ})
    client_id: str = "test"
    device_id: str | None = None
    client_address: str = "127.0.0.1"
    auth_method: str = "token"


@attrs.frozen
class Keyed:
    text: str = ""
    idempotency_key: str | None = None


@attrs.frozen
class Inner:
    last_seen: int


@attrs.frozen
class Result:
    node_id: str
    inner_list: tuple[Inner, ...]


def _spec(table: MethodTable, name: str) -> MethodSpec:
    spec = table.get(name)
    assert spec is not None
    return spec


def _make(handler: Any, **options: Any) -> tuple[Dispatcher, MethodSpec]:
    table = MethodTable()
    table.method("m", scope=READ, **options)(handler)
    return Dispatcher(table), _spec(table, "m")


NONE = msgspec.Raw(b"")


def test_to_wire_names_members_in_camel_case_all_the_way_down() -> None:
    result = Result("n", (Inner(1), Inner(2)))
    wire = {"nodeId": "n", "innerList": [{"lastSeen": 1}, {"lastSeen": 2}]}
    assert to_wire(result) == wire
    assert to_wire([result]) == [wire]
    assert to_wire({"as": "it is"}) == {"as": "it is"}


@pytest.mark.parametrize("result", [Result("n", ()), [Result("n", ())], {"x": 1}, None, "text", msgspec.Raw(b"[1]")])
async def test_results_are_the_same_inline_and_in_a_task(result: Any) -> None:
    dispatcher, inline = _make(lambda context, params: result)

    async def later(context: Any, params: Any) -> Any:
        return result

    other, task = _make(later)
    assert (inline.inline, task.inline) == (True, False)
    assert dispatcher.run_inline(inline, Caller(), NONE) == await other.run(task, Caller(), NONE)
    assert await dispatcher.run(inline, Caller(), NONE) == to_wire(result)


@pytest.mark.expect_error_log("handler failed")
async def test_rule5_a_handlers_exception_never_leaves_as_itself() -> None:
    def boom(context: Any, params: Any) -> None:
        raise KeyError("secret")

    dispatcher, spec = _make(boom)
    with pytest.raises(CallError, match="internal error") as inline:
        dispatcher.run_inline(spec, Caller(), NONE)
    with pytest.raises(CallError, match="internal error") as task:
        await dispatcher.run(spec, Caller(), NONE)
    assert inline.value.error.message != task.value.error.message  # each names its own incident
    assert "secret" not in str(inline.value)


async def test_rule8_concurrency_and_queue_are_bounds() -> None:
    release = trio.Event()

    async def wait(context: Any, params: Any) -> str:
        await release.wait()
        return "done"

    dispatcher, spec = _make(wait, concurrency=2, queue=1)
    done: list[str] = []

    async def call() -> None:
        done.append(await dispatcher.run(spec, Caller(), NONE))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)
        await wait_all_tasks_blocked()
        with pytest.raises(CallError, match=r"m is busy \(limit 2 at once\)") as busy:
            await dispatcher.run(spec, Caller(), NONE)
        assert busy.value.error.retryable
        release.set()
    assert done == ["done"] * 3
    assert spec.limiter is not None
    assert spec.limiter.borrowed_tokens == 0


async def test_rule8_a_deadline_counts_from_the_handlers_start(mock_clock: MockClock) -> None:
    started = 0

    async def wait(context: Any, params: Any) -> None:
        nonlocal started
        started += 1
        await trio.sleep_forever()

    dispatcher, spec = _make(wait, deadline=5.0, concurrency=1, queue=1)
    late = 0

    async def call() -> None:
        nonlocal late
        with pytest.raises(CallError, match="did not finish within 5 s"):
            await dispatcher.run(spec, Caller(), NONE)
        late += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        mock_clock.jump(5.1)
        await wait_all_tasks_blocked()
        assert (started, late) == (2, 1)
        mock_clock.jump(5.1)


# --- idempotency


async def _keyed(dispatcher: Dispatcher, spec: MethodSpec, key: str, text: str = "", principal: str = "p") -> Any:
    raw = msgspec.Raw(msgspec.json.encode({"text": text, "idempotencyKey": key}))
    return await dispatcher.run(spec, Caller(principal=principal), raw)


def _counting(**options: Any) -> tuple[Dispatcher, MethodSpec, list[str]]:
    runs: list[str] = []

    async def handler(context: Any, params: Keyed) -> int:
        runs.append(params.text)
        return len(runs)

    dispatcher, spec = _make(handler, params=Keyed, idempotent=True, **options)
    return dispatcher, spec, runs


async def test_the_same_key_gets_the_same_answer_for_five_minutes(mock_clock: MockClock) -> None:
    dispatcher, spec, _ = _counting()
    assert await _keyed(dispatcher, spec, "k") == 1
    mock_clock.jump(KEY_SECONDS - 1)
    assert await _keyed(dispatcher, spec, "k") == 1
    mock_clock.jump(2)
    assert await _keyed(dispatcher, spec, "k") == 2
    assert KEY_SECONDS == 300


async def test_keys_belong_to_whoever_authenticated() -> None:
    dispatcher, spec, _ = _counting()
    assert await _keyed(dispatcher, spec, "k", principal="device:a") == 1
    assert await _keyed(dispatcher, spec, "k", principal="device:b") == 2


async def test_other_parameters_under_the_same_key_are_a_conflict() -> None:
    dispatcher, spec, runs = _counting()
    await _keyed(dispatcher, spec, "k", "one")
    with pytest.raises(CallError, match="used before with other parameters"):
        await _keyed(dispatcher, spec, "k", "two")
    assert runs == ["one"]


async def test_rule8_at_most_1000_keys_the_oldest_answered_goes() -> None:
    assert MAX_KEYS == 1000
    dispatcher, spec, runs = _counting()
    for index in range(MAX_KEYS + 50):
        await _keyed(dispatcher, spec, f"k{index}")
        assert len(dispatcher._once) <= MAX_KEYS
    assert await _keyed(dispatcher, spec, f"k{MAX_KEYS + 49}") == MAX_KEYS + 50
    assert await _keyed(dispatcher, spec, "k0") == len(runs) == MAX_KEYS + 51


async def test_rule8_keys_that_all_wait_refuse_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_KEYS", 3)

    async def stuck(context: Any, params: Keyed) -> None:
        await trio.sleep_forever()

    dispatcher, spec = _make(stuck, params=Keyed, idempotent=True)
    async with trio.open_nursery() as nursery:
        for index in range(3):
            nursery.start_soon(_keyed, dispatcher, spec, f"k{index}")
        await wait_all_tasks_blocked()
        with pytest.raises(CallError, match="busy"):
            await _keyed(dispatcher, spec, "one more")
        nursery.cancel_scope.cancel()
    assert dispatcher._once == {}


async def test_an_error_is_remembered_a_retryable_one_is_not() -> None:
    from openclaw_gateway.protocol.errors import wire_error

    answers = ["unknown-node", "method-busy"]
    runs = 0

    async def handler(context: Any, params: Keyed) -> None:
        nonlocal runs
        runs += 1
        if params.text == "fixed":
            raise CallError(wire_error(answers[0], node="n"))
        raise CallError(wire_error(answers[1], method="m", limit=1))

    dispatcher, spec = _make(handler, params=Keyed, idempotent=True)
    for key, text, expected in (("a", "fixed", 1), ("b", "retry", 3)):
        for _ in range(2):
            with pytest.raises(CallError):
                await _keyed(dispatcher, spec, key, text)
        assert runs == expected


async def test_whoever_comes_second_waits_and_hears_of_a_cancelled_first() -> None:
    async def stuck(context: Any, params: Keyed) -> None:
        await trio.sleep_forever()

    dispatcher, spec = _make(stuck, params=Keyed, idempotent=True)
    heard: list[bool | None] = []

    async def second() -> None:
        with pytest.raises(CallError) as failed:
            await _keyed(dispatcher, spec, "k")
        heard.append(failed.value.error.retryable)

    async with trio.open_nursery() as seconds, trio.open_nursery() as firsts:
        firsts.start_soon(_keyed, dispatcher, spec, "k")
        await wait_all_tasks_blocked()
        seconds.start_soon(second)
        await wait_all_tasks_blocked()
        firsts.cancel_scope.cancel()
    assert heard == [True]
    assert dispatcher._once == {}


async def test_rule8_kept_answers_are_bounded_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclaw_gateway.rpc.dispatch.MAX_KEPT_CHARS", 1000)
    runs: list[str | None] = []

    async def big(context: Any, params: Keyed) -> dict[str, str]:
        runs.append(params.idempotency_key)
        return {"text": "x" * 400}

    dispatcher, spec = _make(big, params=Keyed, idempotent=True)
    for key in ("a", "b", "c", "c", "b", "a"):
        answer = await dispatcher.run(spec, Caller(), msgspec.Raw(msgspec.json.encode({"idempotencyKey": key})))
        assert len(answer["text"]) == 400
    assert runs == ["a", "b", "c", "a"]
