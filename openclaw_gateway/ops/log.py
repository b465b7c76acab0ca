"""Structured logging for every part: a constant event text and allow-listed fields, on top of the standard library.

Owns the list of fields that may be logged (`FIELDS`), the cleaning of their values, and what gets installed while the
gateway runs (`open_log`). It must not know what any event means, and never sees raw headers, query strings or
parameters: there are no fields for them.

Invariants: one event is one line, whatever a peer sends (CR, LF, ESC and every other unprintable character are
escaped, values are capped); a field that is not in `FIELDS` is dropped and counted in ``fields_dropped``; logging
never raises and never stops the program; until `open_log` runs nothing is installed and records go to the standard
logger ``openclaw_gateway.<name>``, where an embedding program may treat them as it likes.

Wording that people grep for (checklist S161, S167): a client that comes or goes is logged with the words ``connect``
and ``disconnect``, a verdict about credentials with ``auth``, anything about pairing with ``pairing``."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from openclaw_gateway.ops.logconsole import ConsoleHandler
from openclaw_gateway.ops.logfile import LogFileHandler

if TYPE_CHECKING:  # config/ may log too: importing it here would be a circle
    from openclaw_gateway.config.schema import LoggingConfig

__all__ = ["FIELDS", "Log", "LogEvent", "OpenLog", "clean_value", "escape", "get_logger", "log_path", "open_log"]

ROOT: Final = "openclaw_gateway"
MAX_VALUE_CHARS: Final = 512
MAX_LIST_ITEMS: Final = 32
MAX_FIELDS: Final = 32
MAX_STACK_CHARS: Final = 16_384

# name -> meaning. To log something new, add its name here; a test scans every call site of the package.
FIELDS: Final[Mapping[str, str]] = {
    "agent": "id of an agent",
    "accepted": "how many were let in",
    "account": "an account of a message channel",
    "address": "an address this host listens on",
    "attempt": "number of this try, from 1",
    "attempts": "how many tries there were",
    "auth": "how a peer authenticated: token, password, device-token, none",
    "backup": "path of a copy that was made",
    "bind": "the configured bind",
    "bytes": "a size in bytes",
    "certificate": "hex SHA-256 of a certificate",
    "channel": "a message channel's name",
    "client": "client id a peer states (display only)",
    "client_version": "client version a peer states (display only)",
    "clients": "how many clients are connected",
    "close_code": "WebSocket close code",
    "code": "error code as on the wire",
    "command": "name of a node command (never its parameters)",
    "config_path": "path of the configuration file",
    "conn_id": "connection id",
    "count": "how many",
    "decision": "what was decided: approved, rejected, expired, admitted, refused",
    "delay_ms": "a wait that was imposed or that follows, milliseconds",
    "detail": "machine code under details.code of an error",
    "device_id": "device id (SHA-256 of its public key)",
    "dialect": "openclaw, json-rpc, http",
    "directory": "a folder on this host",
    "dropped": "how many were thrown away",
    "duration_ms": "how long it took, milliseconds",
    "error": "text of an error",
    "error_type": "class name of an exception",
    "event_name": "name of a protocol event",
    "failures": "how many failed in a row",
    "fields_dropped": "how many fields of this line were not on this list",
    "file": "a file on this host",
    "fingerprint": "first 8 hex digits of a secret's SHA-256; tells secrets apart, cannot be turned back",
    "fix": "the one command or act that mends it",
    "from_state": "state that was left",
    "hash": "hash of a configuration or file",
    "host": "a host name or address",
    "incident": "id that ties an internal error on the wire to its stack here",
    "issue": "a fault in the configuration",
    "job": "name of a store job",
    "key": "a configuration path",
    "keys": "configuration paths",
    "lag_ms": "how late the event loop ran, milliseconds",
    "level_name": "a log level",
    "limit": "the limit that was reached",
    "listener": "name of a listener",
    "lost": "how many log lines could not be written",
    "message_id": "id of a queued message",
    "method": "name of a method",
    "migration": "number of a store migration",
    "mode": "a mode: of a client, of tailscale, of the gateway",
    "name": "a display name",
    "node_id": "node id",
    "origin": "a browser origin (scheme, host, port)",
    "path": "an HTTP path without its query string",
    "peer": "address of a peer",
    "proxy": "address of a trusted proxy",
    "peer_port": "port of a peer",
    "pending": "how many are waiting",
    "pid": "process id",
    "platform": "platform a peer states (display only)",
    "port": "TCP port",
    "protocol": "negotiated protocol version",
    "queue": "name of a message queue",
    "queued_bytes": "bytes waiting to be sent",
    "reason": "why, in a few words",
    "repeated": "how many identical lines this one stands for, besides those already written",
    "request_id": "id of a pairing request",
    "role": "operator or node",
    "schema_version": "version of the store's schema",
    "scopes": "scopes granted or asked for",
    "secure": "whether the connection is end-to-end encrypted inside the WebSocket",
    "sender": "a person on a message channel",
    "serial": "serial number of a DNS zone",
    "setting": "name of a setting",
    "signal": "name of a POSIX signal",
    "size": "a count or size; the event says of what",
    "source": "where a value came from",
    "stack": "stack of an exception",
    "state": "state that was entered",
    "status": "HTTP status",
    "subject": "whom or what a decision is about",
    "task": "name of a task of ours",
    "tls": "TLS version, or off",
    "trail": "the reasons that led to a verdict",
    "transport": "websocket or http",
    "tunnel": "name of an ssh tunnel",
    "url": "a URL without user, password, query string and fragment",
    "version": "a version of ours",
}


def escape(text: str, limit: int = MAX_VALUE_CHARS) -> str:
    """``text`` on one line: unprintable characters as ``\\xNN``/``\\uNNNN``, at most ``limit`` characters and a
    mark."""
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def clean_value(value: object) -> object:
    """A value as it may be written: one line, capped, raw bytes only by their size. The audit trail uses it too."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [escape(str(item), 128) for item in items[:MAX_LIST_ITEMS]]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"  # raw input may hold secrets and has no place in a log
    return escape(str(value))


def _clean_all(fields: Mapping[str, object]) -> dict[str, object]:
    kept: dict[str, object] = {}
    dropped = 0
    for name, value in fields.items():
        if value is None:
            continue  # "not known" says nothing that its absence does not
        if name not in FIELDS or len(kept) >= MAX_FIELDS:
            dropped += 1
            continue
        try:
            kept[name] = clean_value(value)
        except Exception:  # noqa: BLE001  a broken __str__ must not take down what it describes
            kept[name] = "<unprintable>"
    if dropped:
        kept["fields_dropped"] = dropped
    return kept


class LogEvent:
    """The message of a log record: the event's text and its cleaned fields. ``str()`` gives ``text key=value …``, put
    together once for all handlers.
    """

    __slots__ = ("_line", "fields", "subsystem", "text")

    def __init__(self, subsystem: str, text: str, fields: dict[str, object]) -> None:
        self.subsystem = subsystem
        self.text = text
        self.fields = fields
        self._line: str | None = None

    def __str__(self) -> str:
        if self._line is None:
            self._line = self._join()
        return self._line

    def _join(self) -> str:
        parts = [self.text]
        for name, value in self.fields.items():
            if name != "stack":
                parts.append(f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}")
        return " ".join(parts)


class Log:
    """What `get_logger` returns. Each method takes a constant text and fields named in `FIELDS`; none raises or
    blocks."""

    __slots__ = ("_standard", "_subsystem")

    def __init__(self, subsystem: str) -> None:
        self._subsystem = subsystem
        self._standard = logging.getLogger(f"{ROOT}.{subsystem}")

    def debug(self, event: str, /, **fields: object) -> None:
        if self._standard.isEnabledFor(logging.DEBUG):
            self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        if self._standard.isEnabledFor(logging.INFO):
            self._emit(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        if self._standard.isEnabledFor(logging.WARNING):
            self._emit(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        if self._standard.isEnabledFor(logging.ERROR):
            self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, /, exc: BaseException | None = None, **fields: object) -> None:
        """An error with the stack of ``exc`` (default: the one being handled), without its local variables."""
        if not self._standard.isEnabledFor(logging.ERROR):
            return
        exc = exc if exc is not None else sys.exception()
        if exc is not None:
            fields["error_type"] = type(exc).__name__
            fields["stack"] = ""  # cleaned below, with a cap of its own
        self._emit(logging.ERROR, event, fields, exc)

    def _emit(self, level: int, event: str, fields: Mapping[str, object], exc: BaseException | None = None) -> None:
        cleaned = _clean_all(fields)
        if exc is not None:
            cleaned["stack"] = _stack_lines(exc)
        message = LogEvent(self._subsystem, event if event.isprintable() else escape(event), cleaned)
        standard = self._standard
        standard.handle(standard.makeRecord(standard.name, level, "", 0, message, (), None))


def _stack_lines(exc: BaseException) -> list[str]:
    try:
        text = "".join(traceback.format_exception(exc))
    except Exception:  # noqa: BLE001  formatting runs foreign __str__
        return ["<stack could not be formatted>"]
    # The end names the error, so a stack that is too long loses its beginning.
    return [escape(line, 1024) for line in text[-MAX_STACK_CHARS:].splitlines()]


_loggers: dict[str, Log] = {}


def get_logger(subsystem: str) -> Log:
    """The log of one part of the gateway; the same object for the same name. Importing this installs nothing."""
    return _loggers.setdefault(subsystem, Log(subsystem))


def log_path(config: LoggingConfig, state_dir: Path | None) -> Path | None:
    """Where the log file is: ``logging.file``, else ``<state_dir>/logs/gateway.log``, else nowhere."""
    if config.file is not None:
        return config.file
    return None if state_dir is None else state_dir / "logs" / "gateway.log"


@attrs.define
class OpenLog:
    """What `open_log` installed. ``path`` is the log file, None where there is none."""

    path: Path | None
    _file: LogFileHandler | None

    def tick(self) -> None:
        """Write the counts of collapsed lines that are due. To be called every few seconds; cheap, never raises."""
        if self._file is not None:
            self._file.tick()

    @property
    def lost(self) -> int:
        """Lines that could not be written since the start (disk full, no permission)."""
        return 0 if self._file is None else self._file.lost


@contextmanager
def open_log(config: LoggingConfig, state_dir: Path | None) -> Iterator[OpenLog]:
    """Send everything under ``openclaw_gateway`` to the log file and (``logging.console``) to stderr until the block
    ends.

    A file that cannot be opened is a warning on the console, never an error: a gateway without its log still serves.
    On leaving, what was collapsed is written and the standard logger is as it was before.
    """
    root = logging.getLogger(ROOT)
    before = (root.level, root.propagate)
    path = log_path(config, state_dir)
    handlers: list[logging.Handler] = []
    file = None
    if path is not None:
        file = LogFileHandler(path, max_bytes=config.max_bytes, backups=config.backups)
        handlers.append(file)
    if config.console:
        handlers.append(ConsoleHandler(sys.stderr))
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(config.level.upper())
    root.propagate = False
    try:
        if file is not None and file.trouble:
            get_logger("log").warning("log file cannot be written", file=str(path), error=file.trouble)
        yield OpenLog(path, file)
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(before[0])
        root.propagate = before[1]
