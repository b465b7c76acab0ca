"""What can go wrong on the way into a session, as wire errors.

Owns which failure becomes which row. It must not know the methods that fail so.

Invariant: a caller hears what he can do about it; nothing of the store or of a queue but that there is no room, or that
it cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from openclaw_gateway.agents.router import UnknownAgent
from openclaw_gateway.agents.sessions import TooManySessions
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.queues import QueueFull
from openclaw_gateway.rpc.table import CallError
from openclaw_gateway.store import StoreError

__all__ = ["faults"]


@contextmanager
def faults(method: str) -> Iterator[None]:
    """What fails within the block is answered as a fault of ``method``. Raises `CallError`."""
    try:
        yield
    except QueueFull as exc:
        raise CallError(wire_error("queue-full")) from exc
    except TooManySessions as exc:
        raise CallError(wire_error("session-limit", limit=exc.limit)) from exc
    except StoreError as exc:
        raise CallError(wire_error("store-unavailable")) from exc
    except UnknownAgent as exc:
        raise CallError(wire_error("agent-unknown", agent=exc.agent_id[:64])) from exc
    except ValueError as exc:
        raise CallError(wire_error("invalid-params", method=method, fault=f"at root: {exc}")) from exc
