"""docs/reference/node.md says what the node's code does: its states, files, commands and bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from openclaw_gateway.nodes.host import (
    exec_policy,
    folders,
    invocations,
    keeping,
    lookup,
    process,
    replays,
    seals,
    system_run,
)
from openclaw_gateway.nodes.host.commands import COMMANDS
from openclaw_gateway.nodes.host.pace import CONNECTING, WAITING
from openclaw_gateway.nodes.host.status import NodeState
from openclaw_gateway.protocol import sealed

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "node.md").read_text(encoding="utf-8")
KIB, MIB = 1024, 1024 * 1024


def test_each_state_and_command_is_described() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) >= set(get_args(NodeState))
    assert tuple(re.findall(r"^### (\S+)$", PAGE, re.MULTILINE)) == COMMANDS
    assert f"{CONNECTING.longest:.0f} s, with jitter" in PAGE
    assert f"after {WAITING.first:.0f} … {WAITING.longest:.0f} s" in PAGE
    assert f"the {keeping.MAX_GATEWAYS} used last" in PAGE


def test_each_limit_is_the_one_in_the_code() -> None:
    params, result = invocations.MAX_PARAMS_BYTES // MIB, invocations.MAX_RESULT_BYTES // MIB
    request, reply = sealed.MAX_REQUEST_BYTES // KIB, sealed.MAX_REPLY_BYTES // MIB
    life, skew = sealed.MAX_LIFE_MS / 3_600_000, sealed.SKEW_MS / 60_000
    argv, longest = system_run.MAX_ARGV_BYTES // KIB, invocations.LONGEST_SECONDS / 3600
    for row in (
        f"| commands at once; programs at once | {invocations.MAX_RUNNING}; {system_run.MAX_PROGRAMS} |",
        f"| parameters; result | {params} MiB; {result} MiB |",
        f"| arguments; bytes of them; variables | {system_run.MAX_ARGUMENTS}; {argv} KiB; {system_run.MAX_VARIABLES} |",
        f"| output kept of each stream | {system_run.MAX_OUTPUT_BYTES // KIB} KiB |",
        f"| entries of a listing | {folders.MAX_LISTED} |",
        f"| time of a command; where none is given | at most {longest:.0f} h; {invocations.DEFAULT_SECONDS:.0f} s |",
        f"| entries of each list of the policy | {exec_policy.MAX_ENTRIES} |",
        f"| a sealed request inside; a sealed answer | {request} KiB; {reply} MiB |",
        f"| life of a sealed request; clocks may be apart | at most {life:.0f} h; {skew:.0f} min |",
        f"| sealed requests remembered at once | {replays.MAX_MARKS} |",
        f"At most {lookup.MAX_BINS} names.",
    ):
        assert row in PAGE, row
    assert process.TERM_SECONDS == 0.5  # "half a second later"


def test_each_code_about_sealing_is_described() -> None:
    sources = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (sealed, seals, invocations)]
    codes = {code for source in sources for code in re.findall(r'"(SEALED_[A-Z_]+)"', source)}
    assert len(codes) == 8
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()
