"""Whether a device may connect through the channel it came by: end-to-end encrypted, or in the clear (S096).

Owns that one decision, for a device whose signature was found good. It must not know Noise or sockets. A device that
has registered a key has used the channel: when it comes without one, somebody in between may have taken the offer
away, so it is turned away until a person forgets the device (nothing the device or the network says brings it back).

Invariants: a registered key is never replaced here; what opened the channel and what connects in it are one device;
`off` asks for nothing, because a gateway that offers nothing cannot ask for it.
"""

from __future__ import annotations

from typing import Literal

from openclaw_gateway.protocol.keystatement import KeyStatement

__all__ = ["SecureMode", "judge_channel"]

SecureMode = Literal["off", "on", "required"]


def judge_channel(
    mode: SecureMode, *, role: str, device_id: str, opened_by: KeyStatement | None, registered: str | None
) -> str | None:
    """The key of the error row to refuse with, None where all is well.

    ``opened_by``: the verified statement of whoever opened the channel, None in the clear; ``registered``: the X25519
    key (base64url) that this device registered before.
    """
    if opened_by is None:
        if mode != "off" and registered is not None:
            return "secure-channel-required"
        return "secure-channel-mandatory" if mode == "required" and role == "node" else None
    if opened_by.device_id != device_id or opened_by.subject != role:
        return "secure-channel-device"
    if registered is not None and opened_by.key != registered:
        return "secure-key-changed"
    return None
