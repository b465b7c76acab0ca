"""The doctor: every check, one after the other, each with a verdict and the one command that mends it.

Owns the order and the counting. It must not mend anything and writes nothing. Invariants: a check that breaks is a
failed check, never a broken doctor; the configuration is judged by the validator of the start itself (requirement
CFG-2: fatal here, no start there); no finding holds a secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import attrs

from openclaw_gateway.config.issues import ConfigError, ConfigIssue
from openclaw_gateway.config.load import LoadedConfig, load_config
from openclaw_gateway.config.paths import state_dir

__all__ = ["Finding", "Patient", "examine"]

State = Literal["ok", "warn", "fail"]


@attrs.frozen
class Finding:
    check: str
    state: State
    text: str
    fix: str | None = None


@attrs.frozen
class Patient:
    """What is examined. ``loaded`` is None where the configuration cannot be used at all."""

    env: Mapping[str, str]
    state_dir: Path
    loaded: LoadedConfig | None


Check = Callable[[Patient], list[Finding]]


def examine(env: Mapping[str, str]) -> list[Finding]:
    """Run every check. Blocks for up to a few seconds (the running gateway is asked too); reads files, writes none."""
    from openclaw_gateway.ops import doctor_audit, doctor_checks, doctor_discovery, doctor_queues, doctor_reach

    findings, loaded = _configuration(env)
    patient = Patient(env, state_dir(env), loaded)
    checks: tuple[tuple[str, Check], ...] = (
        ("state", doctor_checks.state_directory),
        ("store", doctor_checks.store),
        ("instance", doctor_reach.instance),
        ("secret", doctor_reach.secret_sources),
        ("gateway", doctor_reach.gateway),
        ("network", doctor_checks.network),
        ("discovery", doctor_discovery.discovery),
        ("log", doctor_checks.log),
        ("audit", doctor_audit.audit),
        ("queues", doctor_queues.queues),
        ("clock", doctor_checks.clock),
        ("versions", doctor_checks.versions),
    )
    for name, check in checks:
        try:
            findings += check(patient)
        except Exception as error:  # noqa: BLE001  one broken check must not hide what the others find
            text = f"the check itself failed: {type(error).__name__}: {error}"
            findings.append(Finding(name, "fail", text, "openclaw doctor --debug"))
    return findings


def _configuration(env: Mapping[str, str]) -> tuple[list[Finding], LoadedConfig | None]:
    try:
        loaded = load_config(env=env)
    except ConfigError as error:
        return [
            Finding("config", "fail" if issue.severity == "fatal" else "warn", str(issue), _fix(issue))
            for issue in error.issues
        ], None
    findings = [Finding("config", "warn", str(issue), _fix(issue)) for issue in loaded.issues]
    if loaded.ignored:
        findings.append(Finding("config", "ok", loaded.warnings[0]))
    if not findings:
        text = f"{loaded.path} is valid" if loaded.exists else f"there is no {loaded.path}: defaults are used"
        findings.append(Finding("config", "ok", text))
    return findings, loaded


def _fix(issue: ConfigIssue) -> str:
    if issue.fix is not None:
        return issue.fix
    return f"openclaw config set {issue.path} <value>" if issue.path else "openclaw config validate"
