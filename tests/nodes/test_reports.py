"""What nodes report: known members, bounded, and never an exception."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.nodes import reports

GOOD = {"cpuCount": 8, "memoryTotalBytes": 10, "memoryFreeBytes": 3, "diskTotalBytes": 9, "diskAvailableBytes": 9}


def test_host_stats_keep_what_is_known() -> None:
    assert reports.host_stats({**GOOD, "loadAverage": [0, 1.5, 2], "updatedAtMs": 1, "name": "x"}) == {
        **GOOD,
        "loadAverage": [0, 1.5, 2],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"cpuCount": True},
        {"cpuCount": 4097},
        {"cpuCount": "8"},
        {"memoryFreeBytes": 11},
        {"memoryFreeBytes": -1},
        {"memoryTotalBytes": None},
        {"diskTotalBytes": 2**63},
        {"loadAverage": [1, 2]},
        {"loadAverage": [1, 2, math.nan]},
        {"loadAverage": [1, 2, 100_001]},
        {"loadAverage": "high"},
    ],
)
def test_host_stats_out_of_range_are_none(change: dict[str, Any]) -> None:
    assert reports.host_stats({**GOOD, **change}) is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["cpuCount", "runId", "name", "idleSeconds", "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(_json)
def test_any_value_is_read_without_an_exception(value: Any) -> None:
    payload = reports.payload_of(value, None)
    assert payload is None or payload is value
    reports.host_stats(payload)
    reports.alive_reason(payload)
    assert reports.activity(payload) is None or isinstance(reports.activity(payload), int)
    reports.exec_report(payload)
    listed = value if isinstance(value, list) else [value]
    assert reports.skills([*listed, 1]) is None
    assert reports.tools([*listed, 1]) is None


@given(st.text(max_size=50))
def test_any_text_is_an_object_or_nothing(text: str) -> None:
    assert isinstance(reports.payload_of(None, text), dict | None)


def test_a_report_that_is_too_long_is_not_even_read() -> None:
    text = '{"x":"' + "y" * reports.MAX_REPORT_CHARS + '"}'
    assert reports.payload_of(None, text) is None


def test_exec_reports_lose_output_and_long_texts() -> None:
    payload = {"runId": "r", "exitCode": 0, "output": "secret", "reason": "x" * 999, "timedOut": [], "command": "id"}
    assert reports.exec_report(payload) == ("r", {"exitCode": 0, "reason": "x" * 256})


def test_an_unknown_trigger_counts_as_background() -> None:
    assert reports.alive_reason({"trigger": "magic"}) == "background"
    assert reports.alive_reason({"trigger": "manual"}) == "manual"
