"""Who may come in: paired devices, requests that wait for a person, device tokens, the gateway's own identity.

The public face of the room. `DeviceBook` is what the server asks on every connect; it is served from memory.
"""

from openclaw_gateway.pairing.devices import DeviceBook, open_device_book
from openclaw_gateway.pairing.identity import GatewayIdentity, load_gateway_identity
from openclaw_gateway.pairing.records import Ask, BookEvent, PairedDevice, PendingRequest
from openclaw_gateway.pairing.tokens import DeviceTokens, load_device_tokens

__all__ = [
    "Ask",
    "BookEvent",
    "DeviceBook",
    "DeviceTokens",
    "GatewayIdentity",
    "PairedDevice",
    "PendingRequest",
    "load_device_tokens",
    "load_gateway_identity",
    "open_device_book",
]
