"""What is said on one network: the bridge between what a gateway says (`records`) and the thread that says it (`mdns`).

Pure.
"""

from __future__ import annotations

import attrs

from openclaw_gateway.discovery.lans import Lan
from openclaw_gateway.discovery.records import (
    LOCAL_DOMAIN,
    SERVICE_TYPES,
    Announcement,
    Mode,
    encode_txt,
    full_name,
    txt_of,
)
from openclaw_gateway.value import Value

__all__ = ["Claim", "Place", "Said", "claim_on"]


@attrs.frozen(eq=False, repr=False)
class Said(Value):
    """One service: ``_openclaw._tcp.local.``, the whole instance name, the TXT record's data."""

    type_name: str
    full_name: str
    txt: bytes


@attrs.frozen(eq=False, repr=False)
class Place(Value):
    """What cannot change without a new responder: the network, the names, the port."""

    link: tuple[str, int, str | None, bool]
    server: str
    port: int
    names: tuple[str, ...]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Claim(Value):
    """``server`` is our host name, with the dot at the end."""

    lan: Lan
    server: str
    port: int
    services: tuple[Said, ...]

    @property
    def place(self) -> Place:
        return Place(self.lan.link, self.server, self.port, tuple(said.full_name for said in self.services))


def claim_on(lan: Lan, said: Announcement, mode: Mode) -> Claim:
    """``said`` as it is announced on ``lan``. Raises ValueError where it does not fit into TXT."""
    return Claim(
        lan=lan,
        server=f"{said.host}.{LOCAL_DOMAIN}",
        port=said.port,
        services=tuple(
            Said(
                f"{service}.{LOCAL_DOMAIN}",
                full_name(said.instance, service),
                encode_txt(txt_of(service, said, mode)),
            )
            for service in SERVICE_TYPES
        ),
    )
