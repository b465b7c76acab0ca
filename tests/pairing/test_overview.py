"""The one table: rows of every kind, what each asks and would grant, and how an id finds its row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway.pairing import DeviceBook
from openclaw_gateway.pairing.decisions import OWNER
from openclaw_gateway.pairing.overview import (
    MIN_PREFIX,
    AmbiguousRequest,
    NoSuchRequest,
    Overview,
    PairingRow,
    device_source,
    find_row,
    sender_source,
)
from tests.pairing.conftest import START_MS, Clock, MakeAsk
from tests.pairing.test_senders import open_house


def node_surface() -> Iterable[PairingRow]:
    yield PairingRow(
        kind="node", state="pending", id="surface-1", subject="node-1", name="Camera", source="192.0.2.9",
        asks=("camera.snap",), grants="node: camera.snap", created_at_ms=START_MS + 1, last_seen_at_ms=START_MS + 1,
        approve=("node.pair.approve", {"requestId": "surface-1"}),
        reject=("node.pair.reject", {"requestId": "surface-1"}),
    )  # fmt: skip


async def test_pair8_senders_devices_and_node_surfaces_stand_in_one_table(
    tmp_path: Path, clock: Clock, book: DeviceBook, make_ask: MakeAsk
) -> None:
    async with open_house(tmp_path / "people", clock) as house:
        await house.channel.write("111", name="Ann")
        clock.now += 1000
        waiting = (await book.request_pairing(make_ask("laptop", "read", "admin", ip="192.0.2.4"), clock())).request
        await book.request_pairing(make_ask("pi", role="node", commands=("camera.snap", "x.y")), clock())
        overview = Overview(sender_source(house.gate), device_source(book))
        overview.add(node_surface)
        rows = [row.to_wire() for row in overview.rows()]
    assert [(row["kind"], row["state"]) for row in rows] == [
        ("dm", "pending"), ("node", "pending"), ("device", "pending"), ("device", "pending"),
    ]  # fmt: skip
    dm, node, operator, device_node = rows
    assert dm["code"] == house.codes[0]
    assert dm["approve"] == {
        "method": "channels.pairing.approve",
        "params": {"channel": "telegram", "accountId": "default", "requestId": dm["id"]},
    }
    assert node["approve"]["method"] == "node.pair.approve"
    assert operator["asks"] == ["operator.admin", "operator.read"]
    assert operator["grants"] == "operator: operator.admin, operator.read"
    assert operator["source"] == "192.0.2.4"
    assert operator["approve"]["params"] == {"requestId": waiting.request_id, "askHash": waiting.ask_hash}
    assert device_node["grants"] == "node: may connect and offer 2 commands"
    assert "token" not in str(rows)


async def test_s168_paired_rows_say_what_they_hold(
    tmp_path: Path, clock: Clock, book: DeviceBook, make_ask: MakeAsk
) -> None:
    async with open_house(tmp_path / "people", clock) as house:
        await house.channel.write("111", name="Ann")
        await house.book.approve("telegram", code=house.codes[0], actor="operator:test")
        approved = await book.approve_silently(make_ask("laptop", "read"), "local", clock())
        overview = Overview(sender_source(house.gate), device_source(book))
        assert {(row.kind, row.grants) for row in overview.rows()} == {
            ("dm", "direct messages"),
            ("device", "operator: operator.read"),
        }
        await book.revoke(approved.device.device_id, "operator", OWNER, clock())
        assert "operator: nothing: revoked" in {row.grants for row in overview.rows()}
        assert [row.kind for row in overview.rows(channel="telegram")] == ["dm"]
        assert overview.rows(channel="discord") == []


async def test_v21_of_one_device_only(clock: Clock, book: DeviceBook, make_ask: MakeAsk) -> None:
    mine = (await book.request_pairing(make_ask("mine", "read"), clock())).request
    await book.request_pairing(make_ask("other", "read"), clock())
    await book.approve_silently(make_ask("third", "read"), "local", clock())
    assert [row.id for row in device_source(book, only=mine.device_id)()] == [mine.request_id]


def waiting_rows(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id_, "state": "pending"} for id_ in ids] + [{"id": "abcdef-paired", "state": "paired"}]


def test_pair5_a_full_id_or_a_unique_beginning() -> None:
    rows = waiting_rows("abcdef12-1", "abcdef34-2", "77777777-3")
    assert find_row(rows, "abcdef12-1")["id"] == "abcdef12-1"
    assert find_row(rows, " 777777 ")["id"] == "77777777-3"
    assert find_row(rows, "ABCDEF1")["id"] == "abcdef12-1"
    with pytest.raises(AmbiguousRequest) as several:
        find_row(rows, "abcdef")
    assert several.value.ids == ("abcdef12-1", "abcdef34-2")
    assert "abcdef34-2" in several.value.fix
    for text in ("77777", "", "abcdef-paired", "999999"):
        with pytest.raises(NoSuchRequest):
            find_row(rows, text)
    assert len("77777") == MIN_PREFIX - 1


def test_pair5_a_full_id_counts_although_it_is_another_ones_beginning() -> None:
    assert find_row(waiting_rows("abcdef", "abcdef1"), "abcdef")["id"] == "abcdef"
