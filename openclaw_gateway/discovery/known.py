"""Gateways that this machine has met: what a discovered one is compared with.

Owns reading them from where others keep them. It must not write: discovery is never a reason to remember anybody
(attack V39). Sources: this host's own gateway (its identity), ``gateway.remote`` (a pinned certificate), the gateways
that let this machine's node in (certificate and identity, learned over a connection that was let in). Invariants: no
secret leaves this module; what cannot be read is left out, with a reason: a damaged file must not stop a look around.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openclaw_gateway.discovery.found import Known
from openclaw_gateway.errors import GatewayError

if TYPE_CHECKING:
    from openclaw_gateway.config.schema import RemoteConfig

__all__ = ["MAX_KNOWN", "known_gateways"]

MAX_KNOWN: Final = 64
_HEX_DIGITS: Final = 64


def known_gateways(
    env: Mapping[str, str], remote: RemoteConfig | None = None, trouble: Callable[[str], None] = lambda text: None
) -> tuple[Known, ...]:
    """All of them. Blocks for a few small files. ``remote``: the block ``gateway.remote``, where the caller has it;
    ``trouble`` hears what could not be read.
    """
    from openclaw_gateway.config.paths import state_dir

    directory = state_dir(env)
    found: list[Known] = []
    for read in (_own, _of_node):
        try:
            found += read(directory)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError, GatewayError) as error:
            trouble(f"a list of known gateways cannot be read: {error}")
    if remote is not None and (remote.url is not None or remote.tls_fingerprint is not None):
        pin = _sha256(remote.tls_fingerprint)
        found.append(Known(tls_sha256=pin, url=remote.url, source="config gateway.remote"))
    return tuple(found[:MAX_KNOWN])


def _own(directory: Path) -> list[Known]:
    from openclaw_gateway.ops.statedir import read_private_file
    from openclaw_gateway.pairing.identity import IDENTITY_FILE

    kept = json.loads(read_private_file(directory / "credentials" / IDENTITY_FILE))
    device_id = _sha256(kept["deviceId"])
    return [Known(device_id=device_id, source="this machine's own gateway")] if device_id else []


def _of_node(directory: Path) -> list[Known]:
    from openclaw_gateway.nodes.host.keeping import Keeping, node_dir

    return [
        Known(
            device_id=_sha256(row.gateway_id),
            tls_sha256=_sha256(row.tls_fingerprint),
            url=row.url,
            source="a gateway that let this machine's node in",
        )
        for row in Keeping(node_dir(directory)).gateways()
    ]


def _sha256(text: str | None) -> str | None:
    """64 hex digits however they were written, None for anything else."""
    bare = (text or "").strip().lower().removeprefix("sha256:").replace(":", "")
    return bare if len(bare) == _HEX_DIGITS and all(digit in "0123456789abcdef" for digit in bare) else None
