"""The thread that speaks mDNS: an asyncio loop of its own, because python-zeroconf lives on one (design rule 10).

Owns the thread's life and the way in and out. It must not know what is announced. Nothing crosses but whole values:
claims go in through ``run_coroutine_threadsafe``, results come out through `TrioToken.run_sync_soon`.

Invariants: the thread ends with the block that opened it, within `CLOSE_SECONDS`, goodbyes included; a caller that is
cancelled is let go at once; a thread that died makes every call raise `MdnsEnded`, never wait.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from openclaw_gateway.errors import GatewayError

if TYPE_CHECKING:
    import asyncio

    from openclaw_gateway.discovery.claims import Claim
    from openclaw_gateway.discovery.mdns import Announcer

__all__ = ["CLOSE_SECONDS", "MdnsEnded", "MdnsThread", "open_mdns_thread"]

CLOSE_SECONDS: Final = 1.0


class MdnsEnded(GatewayError):
    """The discovery thread is not there (any more)."""


class MdnsThread:
    """A running thread, and the `Announcer` in it."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._started = trio.Event()
        self._ended = trio.Event()
        self._fault: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._announcer: Announcer | None = None
        self._stop: asyncio.Event | None = None
        self._closing = False
        self._waiting: set[trio.Event] = set()
        self._thread = threading.Thread(target=self._run, name="discovery-mdns", daemon=True)

    async def start(self) -> None:
        """Returns when the loop runs. Raises what importing zeroconf raised."""
        self._thread.start()
        await self._started.wait()
        if self._fault is not None:
            raise self._fault

    async def announce(self, claims: Sequence[Claim], /) -> dict[str, str]:
        """`Announcer.announce` over there: exactly these are announced; what failed comes back by interface.

        Cancelling lets go at once and cancels it there. Raises `MdnsEnded`.
        """
        import asyncio

        if self._loop is None or self._announcer is None or self._ended.is_set():
            raise MdnsEnded("the discovery thread has ended")
        work = self._announcer.announce(claims)
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:  # the loop closed in between
            work.close()
            raise MdnsEnded("the discovery thread has ended") from error
        done = trio.Event()
        self._waiting.add(done)
        future.add_done_callback(lambda _: self._tell(done.set))
        try:
            await done.wait()
        except trio.Cancelled:
            future.cancel()
            raise
        finally:
            self._waiting.discard(done)
        if not future.done() or future.cancelled():
            raise MdnsEnded("the discovery thread has ended")
        return future.result()

    async def aclose(self) -> None:
        """Take everything back and end the thread. Idempotent; a cancelled one leaves a daemon thread behind that no
        longer announces anything new.
        """
        self._closing = True  # for a thread that is still importing
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread.ident is not None:
            await self._ended.wait()
            self._thread.join()  # past its last line already

    # --- in the thread

    def _run(self) -> None:
        try:
            import asyncio

            from openclaw_gateway.discovery.mdns import Announcer

            async def live() -> None:
                self._announcer = Announcer()
                self._stop = asyncio.Event()
                self._loop = asyncio.get_running_loop()
                self._tell(self._started.set)
                if self._closing:
                    return
                await self._stop.wait()
                await self._announcer.announce(())

            asyncio.run(live())
        except BaseException as error:  # noqa: BLE001  the thread's last frame: whoever waits gets it
            self._fault = error
        finally:
            self._tell(self._finish)

    def _tell(self, act: Callable[[], object]) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(act)

    def _finish(self) -> None:
        self._ended.set()
        self._started.set()
        for event in self._waiting:
            event.set()


@asynccontextmanager
async def open_mdns_thread() -> AsyncIterator[MdnsThread]:
    """A thread that lasts as long as the block. Leaving it says goodbye, shielded, within `CLOSE_SECONDS`."""
    thread = MdnsThread()
    try:
        await thread.start()
        yield thread
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await thread.aclose()
