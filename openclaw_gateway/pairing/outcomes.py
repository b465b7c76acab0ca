"""What a change of the device book leads to: the record or request as it is now, and what there is to tell.

Owns the answers of `DeviceBook`; no behaviour. ``events`` are for the shell to publish, once, after the change.
"""

from __future__ import annotations

import attrs

from openclaw_gateway.pairing.records import BookEvent, PairedDevice, PendingRequest, Resolution
from openclaw_gateway.value import Value

__all__ = ["ApprovalOutcome", "Decided", "RequestOutcome"]


@attrs.frozen(eq=False, repr=False)
class RequestOutcome(Value):
    """``request`` is durable and listed. ``created``: it has a new id. ``superseded``: the id it took the place of."""

    request: PendingRequest
    created: bool
    superseded: Resolution | None
    events: tuple[BookEvent, ...]


@attrs.frozen(eq=False, repr=False)
class ApprovalOutcome(Value):
    device: PairedDevice
    events: tuple[BookEvent, ...]


@attrs.frozen(eq=False, repr=False)
class Decided(Value):
    """What came of a decision that takes away or renames. ``device``: the record concerned, as it is now."""

    device: PairedDevice
    events: tuple[BookEvent, ...]
