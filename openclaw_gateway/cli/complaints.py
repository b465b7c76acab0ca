"""Errors as people read them: what happened, why, and the one command that mends it.

Owns the sentences for the package's own exceptions. It must not decide anything, and prints nothing itself.
"""

from __future__ import annotations

from typing import Any

from openclaw_gateway.errors import CallFailed, GatewayError

__all__ = ["as_wire", "explain", "explain_json"]

FAILED = 1


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def explain(error: BaseException) -> tuple[str, int]:
    """(text, exit code) for any exception."""
    facts = explain_json(error)
    lines = [f"openclaw: {facts['message']}"]
    lines += [f"  {issue}" for issue in facts.get("issues", ())]
    if facts.get("why"):
        lines.append(f"  why: {facts['why']}")
    if facts.get("fix"):
        lines.append(f"  fix: {facts['fix']}")
    return "\n".join(lines), facts["exitCode"]


def as_wire(error: BaseException) -> dict[str, Any]:
    """What ``--json`` prints for a failure: ``{"ok": false, "error": {type, message, fix?, why?, issues?}}``."""
    facts = explain_json(error)
    inner = _innermost(error)
    details = getattr(inner, "details", None)
    detail = details.get("code") if isinstance(details, dict) else None
    kind = detail or facts.get("code") or facts.get("stage") or type(inner).__name__
    told = {"type": kind, "message": facts["message"]}
    told.update({name: facts[name] for name in ("fix", "why", "issues") if facts.get(name)})
    return {"ok": False, "error": told}


def explain_json(error: BaseException) -> dict[str, Any]:
    """The same as fields: ``message``, ``exitCode``, and where known ``why``, ``fix``, ``code``, ``stage``,
    ``issues``."""
    error = _innermost(error)
    facts = _facts(error)
    notes = getattr(error, "__notes__", None)
    if notes:
        facts["why"] = "; ".join(notes)
    return facts


def _row_fix(details: Any) -> str | None:
    """The fix of the error's row, where the gateway sent only its ``code``; None where rows of one code differ."""
    from openclaw_gateway.protocol.errors import ERRORS

    code = details.get("code") if isinstance(details, dict) else None
    fixes = {row.fix for row in ERRORS.values() if code is not None and row.detail == code}
    return fixes.pop() if len(fixes) == 1 and "{" not in next(iter(fixes)) else None


def _facts(error: BaseException) -> dict[str, Any]:
    facts: dict[str, Any] = {"message": str(error) or type(error).__name__, "exitCode": FAILED}
    if isinstance(error, CallFailed):
        from openclaw_gateway.client.errors import fix_for

        fix = fix_for(error.details, error.message) or _row_fix(error.details)
        facts.update(message=f"the gateway refused: {error.message}", code=error.code, fix=fix)
        return facts
    issues = getattr(error, "issues", None)
    if isinstance(error, GatewayError) and isinstance(issues, tuple):
        facts["message"] = "the configuration cannot be used"
        facts["issues"] = [str(issue) for issue in issues]
        facts["fix"] = next((fix for fix in map(_issue_fix, issues) if fix), "openclaw config validate")
        facts["exitCode"] = getattr(error, "exit_code", FAILED)
        return facts
    if isinstance(error, GatewayError):
        for name in ("fix", "stage", "code"):
            value = getattr(error, name, None)
            if isinstance(value, str):
                facts[name] = value
        if facts.get("stage"):
            url = getattr(error, "url", "")
            facts["message"] = f"cannot use the gateway at {url}: {getattr(error, 'message', '')}"
            facts["why"] = _STAGE_WHY.get(facts["stage"])
        else:
            said = getattr(error, "message", None)
            facts["message"] = said if isinstance(said, str) else str(error)
        if type(error).__name__ == "BindFailed":
            facts["fix"] = _bind_fix(error)
        return facts
    if isinstance(error, OSError):
        facts["message"] = f"{error.filename}: {error.strerror}" if error.filename else (error.strerror or str(error))
        facts["fix"] = _file_fix(error)
        return facts
    facts["message"] = f"unexpected {type(error).__name__}: {error}"
    facts["fix"] = "run the same command with --debug and report what it shows"
    return facts


def _issue_fix(issue: Any) -> str | None:
    fix, allowed = getattr(issue, "fix", None), getattr(issue, "allowed", ())
    if isinstance(fix, str) and fix:
        return fix
    return f"give {issue.path} one of: {', '.join(allowed)}" if allowed else None


def _bind_fix(error: Any) -> str:
    if error.busy:
        return f"stop the program that listens there, or: openclaw gateway run --port {error.port + 1}"
    return "ip -brief address   (this host's addresses), then: openclaw config set gateway.bind <loopback, lan or one>"


def _file_fix(error: OSError) -> str | None:
    """The state directory is named by its variable; for any other file, what is there."""
    import os
    import shlex
    from pathlib import Path

    from openclaw_gateway.config.paths import state_dir

    if not isinstance(error.filename, str):
        return None
    directory = state_dir(os.environ)
    if Path(error.filename).is_relative_to(directory) or directory.is_relative_to(error.filename):
        return f"export OPENCLAW_STATE_DIR=<a directory that you may write>   (now {directory})"
    return f"ls -ld {shlex.quote(str(Path(error.filename).parent))} {shlex.quote(error.filename)}"


_STAGE_WHY = {
    "address": None,
    "resolve": "the name could not be looked up",
    "tcp": "no TCP connection came about",
    "tls": "TCP works, TLS does not",
    "http": "TCP works; the answer is not a gateway's",
    "websocket": "TCP works; the WebSocket handshake does not",
    "auth": "the gateway answers; it did not accept who we are",
    "scope": "the gateway knows us; it does not allow what was asked for",
}
