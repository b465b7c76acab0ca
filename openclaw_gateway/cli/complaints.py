"""Errors as people read them: what happened, why, and the one command that mends it.

Owns the sentences for the package's own exceptions. It must not decide anything, and prints nothing itself.
"""

from __future__ import annotations

from typing import Any

from openclaw_gateway.errors import CallFailed, GatewayError

__all__ = ["explain", "explain_json"]

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


def explain_json(error: BaseException) -> dict[str, Any]:
    """The same as fields: ``message``, ``exitCode``, and where known ``why``, ``fix``, ``code``, ``stage``,
    ``issues``."""
    error = _innermost(error)
    facts = _facts(error)
    notes = getattr(error, "__notes__", None)
    if notes:
        facts["why"] = "; ".join(notes)
    return facts


def _facts(error: BaseException) -> dict[str, Any]:
    facts: dict[str, Any] = {"message": str(error) or type(error).__name__, "exitCode": FAILED}
    if isinstance(error, CallFailed):
        from openclaw_gateway.client.errors import fix_for

        facts.update(message=f"the gateway refused: {error.message}", code=error.code, fix=fix_for(error.details))
        return facts
    issues = getattr(error, "issues", None)
    if isinstance(error, GatewayError) and isinstance(issues, tuple):
        facts["message"] = "the configuration cannot be used"
        facts["issues"] = [str(issue) for issue in issues]
        facts["fix"] = next((issue.fix for issue in issues if getattr(issue, "fix", None)), "openclaw config validate")
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
        return facts
    if isinstance(error, OSError):
        facts["message"] = f"{error.filename}: {error.strerror}" if error.filename else (error.strerror or str(error))
        return facts
    facts["message"] = f"unexpected {type(error).__name__}: {error}"
    facts["fix"] = "run the same command with --debug and report what it shows"
    return facts


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
