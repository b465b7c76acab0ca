"""The structured log: fields, cleaning, file format, rotation, collapsing, console."""

import ast
import io
import json
import logging
import os
import pty
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import openclaw_gateway.ops.log as log_module
from openclaw_gateway.config.schema import LoggingConfig
from openclaw_gateway.ops.log import FIELDS, escape, get_logger, log_path, open_log
from openclaw_gateway.ops.logconsole import ConsoleHandler
from openclaw_gateway.ops.logfile import MAX_COLLAPSED, LogFileHandler

PACKAGE = Path(log_module.__file__).parent.parent
FILE_ONLY = LoggingConfig(console=False)
log = get_logger("session")


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class HandClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clocked(tmp_path: Path) -> Iterator[tuple[LogFileHandler, HandClock]]:
    clock = HandClock()
    handler = LogFileHandler(tmp_path / "gateway.log", max_bytes=100_000, backups=2, clock=clock)
    standard = logging.getLogger("openclaw_gateway")
    standard.addHandler(handler)
    level = standard.level
    standard.setLevel("INFO")
    yield handler, clock
    standard.removeHandler(handler)
    standard.setLevel(level)
    handler.close()


def test_file_format_and_modes(tmp_path: Path) -> None:
    with open_log(FILE_ONLY, tmp_path) as opened:
        log.info("connect", conn_id="c1", peer="127.0.0.1", scopes=("operator.read",))
    assert opened.path == tmp_path / "logs" / "gateway.log"
    (line,) = read(opened.path)
    assert list(line)[:4] == ["time", "level", "subsystem", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["time"]))
    assert {k: v for k, v in line.items() if k != "time"} == {
        "level": "info", "subsystem": "session", "event": "connect",
        "message": "connect conn_id=c1 peer=127.0.0.1 scopes=operator.read",  # what OpenClaw's own `logs` shows
        "conn_id": "c1", "peer": "127.0.0.1", "scopes": ["operator.read"],
    }  # fmt: skip
    assert stat.S_IMODE(opened.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(opened.path.parent.stat().st_mode) == 0o700


def test_log3_unknown_fields_are_dropped_and_counted(tmp_path: Path) -> None:
    with open_log(FILE_ONLY, tmp_path) as opened:
        log.info("connect", token="sk-secret", headers={"authorization": "Bearer x"}, conn_id="c")
    assert opened.path is not None
    (line,) = read(opened.path)
    assert line["fields_dropped"] == 2
    assert line["conn_id"] == "c"
    assert b"secret" not in opened.path.read_bytes()
    assert b"Bearer" not in opened.path.read_bytes()


@pytest.mark.parametrize(
    "hostile",
    ["a\nb", "a\r\nb", "\x1b[31mred\x1b[0m", "\x00", "\x7f", "\x9b31m", "\u2028", "\u202e", "\ud800", "x" * 100_000],
)
def test_v52_one_event_is_one_line_whatever_a_peer_sends(tmp_path: Path, hostile: str) -> None:
    config = LoggingConfig(console=True)
    with open_log(config, tmp_path) as opened:
        log.info("connect", client=hostile, scopes=[hostile])
    assert opened.path is not None
    raw = opened.path.read_bytes()
    assert raw.count(b"\n") == 1
    assert len(raw) < 4096
    (line,) = read(opened.path)
    assert str(line["client"]).isprintable()
    assert str(line["event"]) == "connect"


def test_v52_console_gets_no_escape_of_a_peer(capfd: pytest.CaptureFixture[str]) -> None:
    with open_log(LoggingConfig(), None):
        log.info("connect", client="\x1b]0;owned\x07\nfake line")
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert "\\x1b]0;owned\\x07\\nfake line" in err


def test_escape_keeps_what_is_printable() -> None:
    assert escape("Größe 日本 👋") == "Größe 日本 👋"
    assert escape("a\tb") == "a\\tb"


def test_values_that_cannot_be_shown_do_not_raise(tmp_path: Path) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    with open_log(FILE_ONLY, tmp_path) as opened:
        log.info("connect", client=Broken(), reason=b"raw secret bytes", count=3, role=None)
    assert opened.path is not None
    (line,) = read(opened.path)
    assert line["client"] == "<unprintable>"
    assert line["reason"] == "<16 bytes>"
    assert line["count"] == 3


@pytest.mark.expect_error_log("task failed")
def test_exception_carries_type_and_stack_but_no_locals(tmp_path: Path) -> None:
    def fails() -> None:
        secret = "hunter2" + "-local"  # noqa: F841
        raise ValueError("went\nwrong")

    with open_log(FILE_ONLY, tmp_path) as opened:
        try:
            fails()
        except ValueError:
            log.exception("task failed", task="probe")
    assert opened.path is not None
    raw = opened.path.read_text()
    assert raw.count("\n") == 1
    (line,) = read(opened.path)
    assert line["error_type"] == "ValueError"
    assert "ValueError: went" in "\n".join(str(part) for part in line["stack"])  # type: ignore[attr-defined]
    assert raw.count("hunter2-local") == 0


def test_log1_a_million_identical_events_stay_small(tmp_path: Path) -> None:
    with open_log(FILE_ONLY, tmp_path) as opened:
        for _ in range(1_000_000):
            log.warning("auth refused", peer="203.0.113.9", reason="token_mismatch")
    assert opened.path is not None
    assert opened.path.stat().st_size < 1_000_000
    lines = read(opened.path)
    assert sum(1 + (value if isinstance(value := line.get("repeated", 0), int) else 0) for line in lines) >= 1_000_000
    assert sum(int(str(line.get("repeated", 0))) for line in lines) == 1_000_000 - 1


def test_log1_collapsed_lines_come_on_tick(clocked: tuple[LogFileHandler, HandClock]) -> None:
    handler, clock = clocked
    for _ in range(4):
        log.info("connect", conn_id="same")
    assert len(read(handler.path)) == 1
    clock.now += 4.9
    handler.tick()
    assert len(read(handler.path)) == 1
    clock.now += 0.2
    handler.tick()
    assert read(handler.path)[1]["repeated"] == 3
    log.info("connect", conn_id="same")
    clock.now += 9.9
    handler.tick()
    assert len(read(handler.path)) == 2  # the window doubles while it goes on
    clock.now += 0.2
    handler.tick()
    assert read(handler.path)[2]["repeated"] == 1
    clock.now += 100
    handler.tick()
    log.info("connect", conn_id="same")
    assert len(read(handler.path)) == 4  # a quiet window ends the collapsing


def test_different_lines_are_never_collapsed(clocked: tuple[LogFileHandler, HandClock]) -> None:
    handler, _ = clocked
    for number in range(3):
        log.info("connect", conn_id=number)
        log.warning("connect", conn_id=number)
    assert [(line["level"], line["conn_id"]) for line in read(handler.path)] == [
        (level, number) for number in range(3) for level in ("info", "warning")
    ]


def test_cap_lines_watched_for_repetition(clocked: tuple[LogFileHandler, HandClock]) -> None:
    handler, _ = clocked
    log.info("connect", conn_id="first")
    log.info("connect", conn_id="first")
    for number in range(MAX_COLLAPSED * 2):
        log.info("connect", conn_id=number)
    assert len(handler._seen) == MAX_COLLAPSED
    assert [line["repeated"] for line in read(handler.path) if "repeated" in line] == [1]  # pushed out, not forgotten


def test_log1_rotation_keeps_the_newest_and_bounds_the_rest(tmp_path: Path) -> None:
    config = LoggingConfig(console=False, max_bytes=20_000, backups=3)
    with open_log(config, tmp_path) as opened:
        for number in range(3000):
            log.info("connect", conn_id=number)
    logs = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in logs] == ["gateway.log", "gateway.log.1", "gateway.log.2", "gateway.log.3"]
    assert all(path.stat().st_size <= 20_000 for path in logs)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in logs)
    kept = [line["conn_id"] for path in reversed(logs[1:]) for line in read(path)]
    assert opened.path is not None
    kept += [line["conn_id"] for line in read(opened.path)]
    assert kept == list(range(3000 - len(kept), 3000))


@pytest.mark.parametrize("act", ["move", "remove", "truncate", "remove-folder"])
def test_log1_survives_rotation_and_removal_by_others(tmp_path: Path, act: str) -> None:
    with open_log(FILE_ONLY, tmp_path) as opened:
        assert opened.path is not None
        log.info("connect", conn_id="before")
        if act == "move":
            opened.path.rename(opened.path.with_suffix(".old"))
        elif act == "truncate":
            os.truncate(opened.path, 0)
        else:
            opened.path.unlink()
            if act == "remove-folder":
                opened.path.parent.rmdir()
        log.info("connect", conn_id="after")
        assert [line["conn_id"] for line in read(opened.path)] == ["after"]


def test_log1_a_full_disk_costs_lines_and_says_so(tmp_path: Path) -> None:
    full = tmp_path / "gateway.log"
    handler = LogFileHandler(full, max_bytes=10_000, backups=1)
    record = logging.LogRecord("openclaw_gateway.x", logging.INFO, "", 0, "plain", (), None)
    fd, handler._fd = handler._fd, os.open("/dev/full", os.O_WRONLY)
    handler._identity = (full.stat().st_dev, full.stat().st_ino)
    handler.emit(record)
    assert handler.lost == 1
    assert "space" in handler.trouble
    os.close(handler._fd)
    handler._fd = fd
    handler.emit(logging.LogRecord("openclaw_gateway.x", logging.INFO, "", 0, "again", (), None))
    handler.close()
    events = read(full)
    assert [line["event"] for line in events] == ["again", "log lines lost"]
    assert events[1]["lost"] == 1


def test_a_log_that_cannot_be_opened_does_not_stop_the_program(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with open_log(LoggingConfig(), tmp_path) as opened:
        log.info("connect", conn_id="c")
    assert opened.lost >= 1
    err = capfd.readouterr().err
    assert "log file cannot be written" in err
    assert "connect conn_id=c" in err


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "victim"
    target.write_text("precious")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "gateway.log").symlink_to(target)
    with open_log(FILE_ONLY, tmp_path) as opened:
        log.info("connect", conn_id="c")
    assert target.read_text() == "precious"
    assert opened.lost == 2  # the warning about itself, and the line


def test_unconfigured_goes_to_the_standard_logger_and_installs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "openclaw_gateway"):
        log.info("connect", conn_id="c1", scopes=["a", "b"])
    assert caplog.messages == ["connect conn_id=c1 scopes=a,b"]
    assert logging.getLogger("openclaw_gateway").handlers == []


def test_open_log_leaves_things_as_they_were(tmp_path: Path) -> None:
    standard = logging.getLogger("openclaw_gateway")
    before = (standard.level, standard.propagate, list(standard.handlers))
    with open_log(LoggingConfig(level="error"), tmp_path):
        assert standard.handlers
    assert (standard.level, standard.propagate, list(standard.handlers)) == before


def test_level_is_honoured(tmp_path: Path) -> None:
    with open_log(LoggingConfig(level="warning", console=False), tmp_path) as opened:
        log.info("connect")
        log.warning("disconnect")
    assert opened.path is not None
    assert [line["event"] for line in read(opened.path)] == ["disconnect"]


def test_where_the_log_is(tmp_path: Path) -> None:
    assert log_path(LoggingConfig(), None) is None
    assert log_path(LoggingConfig(), tmp_path) == tmp_path / "logs" / "gateway.log"
    assert log_path(LoggingConfig(file=tmp_path / "x.log"), tmp_path) == tmp_path / "x.log"


def _record(text: str = "plain") -> logging.LogRecord:
    return logging.LogRecord("openclaw_gateway.x", logging.WARNING, "", 0, text, (), None)


def test_console_never_blocks_on_a_pipe_nobody_reads() -> None:
    reader, writer = os.pipe()
    with open(writer, "w", closefd=True) as stream:  # noqa: PTH123
        handler = ConsoleHandler(stream)
        for _ in range(5000):
            handler.emit(_record("x" * 200))
    os.close(reader)
    assert handler.dropped > 0


def test_console_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        there = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        ConsoleHandler(stream).emit(_record())
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        ConsoleHandler(stream).emit(_record())
        monkeypatch.setenv("OPENCLAW_LOG_FORMAT", "json")
        ConsoleHandler(stream).emit(_record())
    journal, plain, as_json = (tmp_path / "out").read_text().splitlines()
    assert journal == "<4>openclaw_gateway.x: plain"
    assert plain.endswith("Z warning openclaw_gateway.x: plain")
    assert json.loads(as_json)["level"] == "warning"


def test_console_on_a_terminal_has_colour_unless_asked_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    leader, follower = pty.openpty()
    with open(follower, "w", closefd=True) as stream:  # noqa: PTH123
        ConsoleHandler(stream).emit(_record())
        coloured = os.read(leader, 1000)
        monkeypatch.setenv("NO_COLOR", "1")
        ConsoleHandler(stream).emit(_record())
        bare = os.read(leader, 1000)
    os.close(leader)
    assert b"\x1b[33m" in coloured
    assert b"\x1b" not in bare


def test_console_on_a_captured_stream() -> None:
    stream = io.StringIO()
    ConsoleHandler(stream).emit(_record())
    assert stream.getvalue().endswith("plain\n")


# --- every call site of the package -----------------------------------------------------------------------------------


def _call_sites() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            target.id if isinstance(target, ast.Name) else target.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id == "get_logger"
            for target in node.targets
            if isinstance(target, (ast.Name, ast.Attribute))
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in {"debug", "info", "warning", "error", "exception"}:
                continue
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            direct = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "get_logger"
            if name in names or direct:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_log3_every_call_site_uses_a_constant_text_and_listed_fields() -> None:
    sites = list(_call_sites())
    assert sites
    wrong = []
    for where, call in sites:
        if not (len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)):
            wrong.append(f"{where}: the event must be one constant text")
        for keyword in call.keywords:
            if keyword.arg is None:
                wrong.append(f"{where}: fields are named one by one, not by **")
            elif keyword.arg != "exc" and keyword.arg not in FIELDS:
                wrong.append(f"{where}: {keyword.arg} is not in FIELDS")
    assert wrong == []
