"""``scripts/bench``: runs every measurement, prints the table, writes docs/benchmarks.md when asked."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from . import chat, device_token, dialects, discovery, finding, measure, node_invoke, node_stats, official_node, tls
from .load import LoadError, request_frame
from .report import Row, failed, markdown, table
from .servers import TOKEN, Official, Server, openclaw, ours, program

GROUPS = (
    "start", "memory", "discovery", "connect", "throughput", "invoke", "official-node", "echo", "idle", "connections",
    "node-stats", "fanout", "chat", "tls", "dialects", "reference",
)  # fmt: skip
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}/s"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.2f} ms"


def _mb(size: float) -> str:
    return f"{size / 1_000_000:,.1f} MB"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _faster(what: str, mine: float, theirs: float, target: float | None) -> Row:
    ratio = mine / theirs
    asked = "" if target is None else f">= {target:g}x"
    reached = None if target is None else ratio >= target
    return Row(what, _per_second(mine), _per_second(theirs), _times(ratio), asked, reached)


def _start(official: Official, quick: bool) -> Row:
    _say("start to /health")
    theirs = measure.starts(lambda: openclaw(official), 1 if quick else 3)
    mine = measure.starts(ours, 2 if quick else 5)
    ratio = theirs / mine
    return Row("start to /health", _ms(mine), _ms(theirs), f"1/{ratio:.1f}", "<= 1/15", ratio >= 15)


def _both(official: Official, only: set[str], quick: bool) -> list[Row]:
    """Ours beside OpenClaw's own gateway: both stand, and are asked in turns."""
    rows: list[Row] = []
    with ExitStack() as stack:
        _say("starting both gateways")
        theirs = stack.enter_context(openclaw(official))
        mine = stack.enter_context(ours())
        theirs.wait_ready(path="/readyz", seconds=60)
        # Waited for in any case: what a gateway still does after its start is done on the core that both share.
        sizes = (mine.settled_bytes(), theirs.settled_bytes())
        if "memory" in only:
            ratio = sizes[1] / sizes[0]
            reached = sizes[0] <= 48_000_000 and ratio >= 12
            shown = (_mb(sizes[0]), _mb(sizes[1]))
            rows.append(Row("idle RSS, whole tree", *shown, f"1/{ratio:.1f}", "<= 48 MB, 1/12", reached))
        pair = (mine, theirs)
        for server in pair:
            server.pin(measure.SERVER_CORE)
        if "connect" in only:
            _say("connect to hello")
            rate, beside_rate = measure.connects(pair)
            rows.append(_faster("connect to hello, 8 at a time", rate, beside_rate, 1.5))
            rows.append(_device_token(pair, 2 if quick else 3))
        if "throughput" in only:
            rows += _throughput(pair, 0.5 if quick else 1.5)
        if "invoke" in only:
            _say("node.invoke")
            rows += node_invoke.rows(pair, 0.5 if quick else 1.5)
        if "official-node" in only:
            _say("node.invoke with OpenClaw's node host")
            rows += official_node.rows(pair, official, 1.0 if quick else 3.0)
        if "chat" in only:
            _say("chat.send")
            rows += chat.rows(pair, quick)
        if "idle" in only:
            _say("idle CPU")
            share, beside = measure.idle_cpu(pair, 5.0 if quick else 20.0)
            # Below zero: a process of it ended meanwhile and took its time with it.
            cells = (f"{share:.2%}", f"{beside:.2%}" if beside >= 0 else "", "")
            rows.append(Row("idle CPU, 20 clients", *cells, "< 0.5% of a core", share < 0.005))
    return rows


def _device_token(pair: tuple[Server, Server], rounds: int) -> Row:
    """Connects of a paired device, one after another, the servers in turns; medians over the rounds."""
    _say("connect with a device token")
    devices = [device_token.Device() for _ in pair]
    for server, device in zip(pair, devices, strict=True):
        device_token.pair(server.port, TOKEN, device)
    rates: list[list[float]] = [[], []]
    for _ in range(rounds):
        for place, (server, device) in enumerate(zip(pair, devices, strict=True)):
            rates[place].append(device_token.connects(server.port, device, count=200, warm_up=20).per_second)
    mine, theirs = (statistics.median(found) for found in rates)
    return _faster("connect with a device token, one at a time", mine, theirs, 1.5)


def _throughput(pair: tuple[Server, Server], seconds: float) -> list[Row]:
    targets = {
        "health": 8.0,
        "node.list": 8.0,
        "system-presence": 1.8,
        "system-presence x16": 2.5,
        "logs.tail": 20.0,
    }
    rows = []
    for name, method, params, in_flight in measure.METHODS:
        _say(name)
        sizes = [measure.reply_bytes(server, method, params) for server in pair]
        frame = request_frame(measure.ID, method, params)
        mine, theirs = measure.in_turns([(server, TOKEN) for server in pair], frame, in_flight, seconds=seconds)
        rows.append(_faster(f"{name} ({sizes[0]:,} B / {sizes[1]:,} B)", mine.rate, theirs.rate, targets[name]))
        if name in ("health", "node.list"):
            ratio = theirs.p99 / mine.p99
            cells = (f"{name} p99", _ms(mine.p99), _ms(theirs.p99), f"1/{ratio:.1f}")
            rows.append(Row(*cells, "<= 1/8", ratio >= 8))
    return rows


def _echo(official: Official, quick: bool) -> list[Row]:
    """Our smallest method beside servers that only send back what came."""
    rows = []
    with ExitStack() as stack:
        mine = stack.enter_context(measure.pinned(ours))
        bare_trio = stack.enter_context(measure.pinned(lambda: program("echo_trio.py")))
        module = str(official.modules / "ws")
        bare_node = stack.enter_context(measure.pinned(lambda: program("echo_node.cjs", module, node=official)))
        targets: list[tuple[Server, str | None]] = [(mine, TOKEN), (bare_trio, None), (bare_node, None)]
        frame = request_frame(measure.ID, "last-heartbeat")
        for in_flight, target in ((1, 1.3), (16, 2.5)):
            _say(f"bare echo servers, {in_flight} in flight")
            rate, trio_rate, node_rate = (
                result.rate for result in measure.in_turns(targets, frame, in_flight, seconds=0.5 if quick else 1.5)
            )
            name = "last-heartbeat" if in_flight == 1 else f"last-heartbeat x{in_flight}"
            rows.append(_faster(f"{name}, beside a bare trio-websocket echo", rate, trio_rate, target))
            rows.append(_faster(f"{name}, beside a bare ws echo (Node)", rate, node_rate, None))
    return rows


def _rest(official: Official, only: set[str], quick: bool) -> list[Row]:
    rows = []
    if "connections" in only:
        _say("1,000 idle connections")
        each = measure.per_connection(lambda: ours(connections=1100), 1000) / 1024
        rows.append(Row("an idle connection, of 1,000", f"{each:.1f} KiB", "", "", "<= 20 KiB", each <= 20))
    if "node-stats" in only:
        _say(f"{node_stats.NODES} nodes that report stats")
        with measure.pinned(lambda: ours(connections=node_stats.NODES + 100)) as server:
            rows.append(node_stats.row(server, 10.0 if quick else 30.0))
    if "fanout" in only:
        _say("one event to 500 clients")
        mine = measure.fanout("fanout_gateway.py", TOKEN, token=TOKEN)
        theirs = measure.fanout("fanout_trio_websocket.py", token=None)
        ratio = theirs / mine
        what = "one event to 500 clients, beside 500 trio-websocket sends"
        rows.append(Row(what, _ms(mine), _ms(theirs), f"1/{ratio:.1f}", "<= 1/2", ratio >= 2))
    if "chat" in only:
        _say(f"{chat.STREAMS} answers at once")
        rows.append(chat.stream_row())
    if "tls" in only:
        _say("plain, TLS and client certificates")
        with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
            scale = (2, 60, 100) if quick else (3, 200, 300)
            rows += tls.rows(official, Path(folder), rounds=scale[0], count=scale[1], connections=scale[2])
    if "dialects" in only:
        _say("Protocol Buffers beside JSON")
        with measure.pinned(ours) as server:
            rows += dialects.rows(server, 0.2 if quick else 0.5)
    if "reference" in only:
        _say("the reference client")
        seconds = 1.0 if quick else 3.0
        theirs_rates = measure.reference(lambda: openclaw(official), official, seconds)
        mine_rates = measure.reference(ours, official, seconds)
        for name, rate in mine_rates.items():
            rows.append(_faster(f"{name}, seen by @openclaw/gateway-client", rate, theirs_rates[name], None))
    return rows


def _machine(official: Official, busy: float) -> list[str]:
    cpu = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    model = next((value.strip() for name, _, value in cpu if name.strip() == "model name"), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    node = subprocess.run([official.node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return [
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB; Linux {platform.release()}",
        f"Python {platform.python_version()}, Node {node}, OpenClaw 2026.9.6, @openclaw/gateway-client 2026.9.1",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {busy:.0%} of the machine was in use before it",
    ]


INTRODUCTION = """# Benchmarks

One run of `scripts/bench --write`, kept as it came. The command installs OpenClaw in a folder of its own, starts its
gateway beside this one on the same machine, and asks both the same questions in turns (three rounds, medians). Nothing
here is a timed test: a busy machine moves every number, so read the ratios.

- **Load**: 10 clients on raw sockets with frames built beforehand, one generator process on one core, the server and
  everything it starts on another. "x16" keeps 16 requests in flight per client, other rows one. The connect request is
  the one the reference client sends. Sizes in brackets are our and OpenClaw's reply.
- **Start and memory** are measured free to use every core. Memory is VmRSS added up over the process tree once it has
  settled.
- **Echo** rows ask our smallest method, `last-heartbeat`, with the message that the bare echo servers send back.
- **node.invoke** rows ask a scripted node in the load generator, so that the gateway is all that differs. The rows with
  OpenClaw's node host have that program's own time in both numbers, on the generator's core.
- **200 nodes**: their reports are pressed together, each node reporting every 2 s instead of every 60; the row is the
  share of the core with all of them silent plus a thirtieth of what the reports added.
- **chat.send**: OpenClaw has no agent that answers without a model, so its acknowledgement stands beside our first
  words, which come after ours and after the message is durable.
- **TLS** rows connect one at a time with Python's own `ssl` on the client's side, whose share of the time is the same
  for all; OpenClaw asks for no client certificates, so mTLS stands beside its TLS.
- **Protobuf** rows compare this gateway with itself: the subprotocol `openclaw.v4.proto` beside JSON, for the same
  frames. "Read" is from the message to the method's parameters, "written" from a handler's value to the message, and
  calls go through a running gateway whose own CPU time is counted.
- **Reference client** rows use `@openclaw/gateway-client` itself, whose own speed limits what it can see.
"""


def _document(rows: Sequence[Row], machine: Sequence[str]) -> str:
    about = "\n".join(f"- {line}" for line in machine)
    return f"{INTRODUCTION}\n## The machine\n\n{about}\n\n## The run\n\n{markdown(rows)}\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure this gateway beside OpenClaw's own.")
    parser.add_argument("--official", required=True, type=Path, help="where scripts/official installed OpenClaw")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--strict", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--quick", action="store_true", help="shorter measurements, for a look")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"some of: {', '.join(GROUPS)}")
    options = parser.parse_args()
    only = set(options.only.split(","))
    if unknown := only - set(GROUPS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    official = Official(options.official)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    busy = measure.busy()
    measure.use_generator_core()
    try:
        rows = [_start(official, options.quick)] if "start" in only else []
        if only & {"memory", "connect", "throughput", "invoke", "official-node", "idle", "chat"}:
            rows += _both(official, only, options.quick)
        if "discovery" in only:
            _say("announcing on the LAN, and not")
            rows += discovery.rows(3 if options.quick else 7)
            _say("devices discover")
            rows += finding.rows(3 if options.quick else 9)
        if "echo" in only:
            rows += _echo(official, options.quick)
        rows += _rest(official, only, options.quick)
    except LoadError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("scripts/bench: interrupted; every server was ended", file=sys.stderr)
        return 130
    machine = _machine(official, busy)
    print("\n".join(machine), table(rows), sep="\n\n")
    missed = failed(rows)
    print(f"\n{len(missed)} of {len([row for row in rows if row.reached is not None])} targets missed")
    if options.write:
        DOCUMENT.write_text(_document(rows, machine))
        print(f"written: docs/{DOCUMENT.name}")
    return 1 if missed and options.strict else 0


sys.exit(main())
