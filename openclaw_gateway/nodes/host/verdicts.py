"""What a refused connect means for the node: try again, wait for a person, try another proof, or stop. Pure.

Owns that one decision. It must not know sockets or time. Invariant: a state that only a person can change by giving
this node another secret or another version ends the loop; everything that may pass by itself does not.
"""

from __future__ import annotations

from typing import Final, Literal

from openclaw_gateway.client.errors import ConnectFailed

__all__ = ["Verdict", "judge_refusal"]

Verdict = Literal["retry", "wait", "other-proof", "stop"]

_UNREACHED: Final = {"resolve", "tcp", "tls", "http"}
_PASSING_CODES: Final = {"UNAVAILABLE", "INTERNAL", "INTERNAL_ERROR"}
_PASSING_DETAILS: Final = {
    "AUTH_RATE_LIMITED", "DEVICE_AUTH_SIGNATURE_EXPIRED", "DEVICE_AUTH_NONCE_MISMATCH", "DEVICE_AUTH_NONCE_REQUIRED",
}  # fmt: skip


def judge_refusal(error: ConnectFailed) -> Verdict:
    """``other-proof``: this secret is wrong, another one of ours may be right."""
    detail = str((error.details or {}).get("code", ""))
    if error.stage == "address":
        return "stop"
    if error.stage in _UNREACHED or error.code is None:
        return "retry"
    if detail == "PAIRING_REQUIRED":
        return "wait"
    if error.retryable or error.code in _PASSING_CODES or detail in _PASSING_DETAILS:
        return "retry"
    if detail.startswith("AUTH_"):
        return "other-proof"
    return "stop"
