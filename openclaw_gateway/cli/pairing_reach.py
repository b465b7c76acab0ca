"""How the commands of ``openclaw pairing`` reach the pairing methods.

Owns the choice of the way. On this host: as the owner of the state directory, through the running gateway's own door,
or on the directory itself while no gateway runs, so no lack of scopes or secrets can lock the owner out (PAIR-2). With
``--url``, ``--token``, ``--password``, ``--port``, or in remote mode: over the network, like everything else. It must
not know what a method means. Invariant: every refusal comes with the next command.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from openclaw_gateway.cli.connect import Reach, call
from openclaw_gateway.errors import CallFailed, GatewayError

__all__ = ["Answer", "PairingRefused", "ask", "decide"]


@attrs.define(eq=False)
class PairingRefused(GatewayError):
    """A command that cannot be carried out as it was given; ``fix`` is the next one."""

    message: str
    fix: str

    def __str__(self) -> str:
        return self.message


@attrs.frozen
class Answer:
    """``via``: gateway (its owner's door), network, or offline (no gateway runs)."""

    payload: Any
    via: str


def ask(reach: Reach, method: str, params: Mapping[str, Any], scopes: Sequence[str] = ()) -> Answer:
    if not _is_named(reach):
        from openclaw_gateway.client.owner import DoorShut, ask_as_owner
        from openclaw_gateway.config.paths import state_dir
        from openclaw_gateway.ops.instance import read_holder

        directory = state_dir(os.environ)
        try:
            return Answer(ask_as_owner(directory, method, params, timeout=max(reach.timeout, 1.0)), "gateway")
        except DoorShut:
            if read_holder(directory) is None:
                return Answer(_ask_offline(method, params), "offline")
        except OSError as exc:
            text = f"the gateway did not finish its answer ({exc}); what was asked may be done"
            raise PairingRefused(text, "openclaw pairing list, then: openclaw doctor") from exc
    wanted = tuple(dict.fromkeys(("operator.pairing", *scopes)))
    return Answer(call(reach, method, params, scopes=wanted), "network")


def _is_named(reach: Reach) -> bool:
    """True where a gateway or a secret was named: then that one is asked, with that secret."""
    from openclaw_gateway.client.resolve import URL_VARIABLE

    if reach.url or reach.token or reach.password or reach.port or os.environ.get(URL_VARIABLE, "").strip():
        return True
    return bool(_config().mode == "remote")  # whatever the way: nothing of this host is asked instead


def _config() -> Any:
    from openclaw_gateway.config.issues import ConfigError
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.schema import GatewayConfig

    try:
        return load_config(env=os.environ).config
    except ConfigError:
        return GatewayConfig()  # a broken file must not keep anybody from deciding who is paired


def _ask_offline(method: str, params: Mapping[str, Any]) -> Any:
    import trio

    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.ops.log import open_log
    from openclaw_gateway.pairing.offline import open_offline
    from openclaw_gateway.rpc.table import CallError

    directory, config = state_dir(os.environ), _config()

    async def run() -> Any:
        create = method == "channels.pairing.policy" and params.get("policy") is not None
        async with open_offline(directory, config, create=create) as offline:
            return await offline.call(method, params)

    # What is decided offline belongs into the same log as what a gateway decides; looking must not make one.
    logging = attrs.evolve(config.logging, console=False)
    try:
        with open_log(logging, directory if (directory / "logs").exists() else None):
            return trio.run(run)
    except CallError as exc:
        error = exc.error
        details = dict(error.details) if error.details is not None else None
        raise CallFailed(error.code, error.message, details) from exc


def decide(reach: Reach, call_: Mapping[str, Any], scopes: Sequence[str] = ()) -> Answer:
    """Carry out what a row says; the error table's own fix goes with a refusal."""
    try:
        return ask(reach, call_["method"], call_["params"], scopes)
    except CallFailed as error:
        raise _with_fix(error) from error


def _with_fix(error: CallFailed) -> PairingRefused:
    from openclaw_gateway.client.errors import fix_for
    from openclaw_gateway.protocol.errors import ERRORS

    code = str((error.details or {}).get("code", ""))
    known = next((row.fix for row in ERRORS.values() if row.detail == code), None)
    fix = fix_for(error.details) if error.details else None
    if code == "MISSING_SCOPE":
        known = "run the same command on the gateway's host, without --url and --token"
    return PairingRefused(f"the gateway refused: {error.message}", fix or known or "openclaw pairing list")
