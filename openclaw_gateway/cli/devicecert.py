"""``openclaw devices cert``: a client certificate for a device, made here and signed by the gateway.

Owns the flags and where the files go. The key is made on the machine that runs the command and stays there; only a
request for it goes to the gateway. On the gateway's host the owner of the state directory is asked nothing else
(`cli.pairing_reach`), so that this works where certificates are required already.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from openclaw_gateway.cli.connect import Reach, reach_options
from openclaw_gateway.cli.output import print_json, print_table, printable

__all__ = ["cert"]


@click.command()
@click.argument("device_id", required=False, metavar="[DEVICE]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Folder for both files.")
@click.option("--csr", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Sign this request; make no key here.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="List the certificates that count.")
@click.option("--revoke", "revoking", is_flag=True, help="End the device's certificates and its connections.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def cert(
    device_id: str | None, out: Path | None, csr: Path | None, listing: bool, revoking: bool, as_json: bool,
    reach: Reach,
) -> None:  # fmt: skip
    """Get DEVICE (an id as `devices list` shows it) a client certificate for mutual TLS.

    Without DEVICE: this host's own device, the one that `openclaw node run` connects as. Its files go where the
    commands of this host look for them: identity/client-cert.pem and identity/client-key.pem in the state directory.
    """
    if sum((listing, revoking, csr is not None)) > 1:
        raise click.UsageError("--list, --revoke and --csr exclude each other")
    if listing:
        _list(device_id, as_json, reach)
        return
    device = device_id or _own_device()
    if revoking:
        answer = _ask(reach, "device.cert.revoke", {"deviceId": device})
        print_json(answer) if as_json else click.echo(f"{answer['revoked']} certificate(s) of {device[:16]} revoked")
        return
    if csr is not None:
        answer = _ask(reach, "device.cert.issue", {"csrPem": csr.read_text("ascii"), "deviceId": device})
        print_json(answer) if as_json else click.echo(answer["certPem"], nl=False)
        return
    _issue(device, out, as_json, reach)


def _issue(device: str, out: Path | None, as_json: bool, reach: Reach) -> None:
    from openclaw_gateway.client.certificate import keep, make_request
    from openclaw_gateway.client.resolve import CLIENT_CERTIFICATE, CLIENT_KEY
    from openclaw_gateway.client.tls import ClientCertificate
    from openclaw_gateway.config.paths import state_dir

    folder = out if out is not None else state_dir(os.environ) / "identity"
    where = ClientCertificate(folder / CLIENT_CERTIFICATE, folder / CLIENT_KEY)
    new = make_request()
    answer = _ask(reach, "device.cert.issue", {"csrPem": new.csr, "deviceId": device})
    keep(new, str(answer["certPem"]), where)
    if as_json:
        print_json({**answer, "certPath": str(where.cert_path), "keyPath": str(where.key_path)})
        return
    click.echo(f"certificate: {where.cert_path}")
    click.echo(f"key:         {where.key_path}")
    if answer.get("tlsFingerprint"):
        click.echo(f"the gateway's own fingerprint: {answer['tlsFingerprint']}")
    if answer.get("clientAuth") == "off":
        click.echo("next: openclaw config set gateway.tls.clientAuth optional   (nothing asks for certificates yet)")


def _list(device_id: str | None, as_json: bool, reach: Reach) -> None:
    import time

    answer = _ask(reach, "device.cert.list", {} if device_id is None else {"deviceId": device_id})
    if as_json:
        print_json(answer)
        return
    rows = answer.get("certificates") or []
    if not rows:
        click.echo("No client certificate counts.")
        return
    print_table(
        [
            (row["deviceId"], row["fingerprint"][:16], time.strftime("%Y-%m-%d", time.gmtime(row["notAfterMs"] / 1000)))
            for row in rows
        ],
        ("DEVICE", "CERTIFICATE", "UNTIL"),
    )


def _ask(reach: Reach, method: str, params: dict[str, Any]) -> dict[str, Any]:
    from openclaw_gateway.cli.pairing_reach import decide

    answer = decide(reach, {"method": method, "params": params}).payload
    return answer if isinstance(answer, dict) else {}


def _own_device() -> str:
    from openclaw_gateway.client.identity import load_identity
    from openclaw_gateway.config.paths import state_dir

    folder = state_dir(os.environ)
    for kept in (folder / "node" / "identity.json", folder / "identity" / "device.json"):
        identity = load_identity(kept)
        if identity is not None:
            return str(identity.device_id)
    raise click.UsageError(
        f"no device of this host's own is known in {printable(folder)}; name one: openclaw pairing list shows them.\n"
        "Where none is paired: openclaw config set gateway.tls.clientAuth optional   (then pair one)"
    )
