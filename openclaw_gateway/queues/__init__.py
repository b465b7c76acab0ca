"""Durable queues of messages: what was accepted is worked on, in the order of its conversation, until it is done."""

from openclaw_gateway.queues.queue import MessageQueue, open_queues
from openclaw_gateway.queues.records import (
    Accepted,
    Effect,
    NewMessage,
    QueuedMessage,
    QueueFull,
    QueueRules,
    RetryLater,
    Undeliverable,
)

__all__ = [
    "Accepted",
    "Effect",
    "MessageQueue",
    "NewMessage",
    "QueueFull",
    "QueueRules",
    "QueuedMessage",
    "RetryLater",
    "Undeliverable",
    "open_queues",
]
