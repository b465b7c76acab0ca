"""What holds for every test: a deadline, nothing left behind, no unasserted ERROR log, and on CI no skip.

Owns the global fixtures and hooks; it must not import the package under test, so that a broken import fails the
tests that need it and no others. Invariants: a test ends within its deadline; after it no thread, no child process
and no ERROR record remains that it did not announce.

Marks: ``deadline(seconds)`` replaces the 30 s a test has; ``expect_error_log("text", ...)`` announces ERROR
records: each record must contain one of the texts and each text must appear. A test that takes pytest's ``caplog``
asserts its records itself.
"""

from __future__ import annotations

import faulthandler
import functools
import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import pytest
import trio

DEADLINE = 30.0
SLOW_DEADLINE = 120.0  # interop and soak: Node needs seconds to start
GRACE = 2.0  # what threads and processes have to end after the test's last line

ON_CI = os.environ.get("CI") == "true"

# How long an example takes says how busy the machine is. Where CI is set Hypothesis takes such a profile by itself.
if not ON_CI:
    hypothesis.settings.register_profile(
        "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("unhurried")


class DeadlineExceeded(BaseException):
    """Derives from BaseException so that no crash barrier under test can swallow it."""


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("OPENCLAW_DISABLE_BONJOUR", "1")  # gateways under test are not announced on this host's LAN
    config.addinivalue_line("markers", "deadline(seconds): this test's deadline instead of 30 s")
    config.addinivalue_line("markers", "expect_error_log(*texts): ERROR records that this test provokes")


def _deadline(item: pytest.Item) -> float:
    mark = item.get_closest_marker("deadline")
    if mark is not None:
        return float(mark.args[0])
    if item.get_closest_marker("interop") or item.get_closest_marker("soak"):
        return SLOW_DEADLINE
    return DEADLINE


_running: tuple[trio.lowlevel.TrioToken, trio.CancelScope] | None = None


def _under_deadline(function: Callable[..., Any]) -> Callable[..., Any]:
    """The test in a scope that the alarm cancels: by the wall clock, so that it holds under a clock moved by hand
    too.
    """

    @functools.wraps(function)
    async def bounded(*args: Any, **kwargs: Any) -> Any:
        global _running
        with trio.CancelScope() as scope:
            _running = (trio.lowlevel.current_trio_token(), scope)
            try:
                return await function(*args, **kwargs)
            finally:
                _running = None
        raise DeadlineExceeded("the test was cancelled at its deadline")

    return bounded


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        handle = getattr(item.obj, "hypothesis", None)
        if handle is not None and inspect.iscoroutinefunction(handle.inner_test):
            handle.inner_test = _under_deadline(handle.inner_test)
        elif inspect.iscoroutinefunction(item.obj):
            item.obj = _under_deadline(item.obj)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Cancels a test at its deadline; ten seconds later, or where there is no Trio run, breaks in by force."""
    seconds = _deadline(item)
    asked = False

    def late(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
        if _running is not None and not asked:
            asked = True
            token, scope = _running
            token.run_sync_soon(scope.cancel)
            signal.setitimer(signal.ITIMER_REAL, 10)
            return
        raise DeadlineExceeded(f"{item.nodeid} took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if ON_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if ON_CI and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {report.longrepr}"
    return report


class _ErrorRecords(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record not in self.records:  # attached in two places: a record may arrive twice
            self.records.append(record)


@pytest.fixture(autouse=True)
def no_unasserted_error_log(request: pytest.FixtureRequest) -> Iterator[None]:
    if "caplog" in request.fixturenames:
        yield
        return
    handler = _ErrorRecords()
    places = [logging.getLogger(), logging.getLogger("openclaw_gateway")]
    for place in places:
        place.addHandler(handler)
    try:
        yield
    finally:
        for place in places:
            place.removeHandler(handler)
    mark = request.node.get_closest_marker("expect_error_log")
    texts: tuple[str, ...] = mark.args if mark is not None else ()
    lines = [record.getMessage() for record in handler.records]
    unasserted = [line for line in lines if not any(text in line for text in texts)]
    missing = [text for text in texts if not any(text in line for line in lines)]
    if unasserted:
        pytest.fail(f"ERROR records that the test did not announce: {unasserted}")
    if missing:
        pytest.fail(f"ERROR records that the test announced and that never came: {missing}")


def _threads() -> set[threading.Thread]:
    # Trio keeps idle worker threads for ten seconds; they belong to its cache, not to the test.
    return {thread for thread in threading.enumerate() if not thread.name.lower().startswith("trio")}


def _children() -> dict[int, str]:
    """Child processes of this one by pid, zombies included; the text says what runs there. Empty where there is no
    /proc.
    """
    found = {}
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            pids = [int(word) for word in listing.read_text().split()]
        except OSError:
            continue  # the thread ended between the listing and the read
        for pid in pids:
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            found[pid] = line or "(zombie)"
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test after which a thread or a child process remains, and ends that process."""
    threads, children = _threads(), set(_children())
    yield
    until = time.monotonic() + GRACE
    while True:
        new_threads = _threads() - threads
        new_children = {pid: line for pid, line in _children().items() if pid not in children}
        if not (new_threads or new_children) or time.monotonic() > until:
            break
        time.sleep(0.02)
    for pid in new_children:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
    if new_threads or new_children:
        pytest.fail(f"left behind: threads {sorted(t.name for t in new_threads)}, processes {new_children}")
