"""V15: nowhere in the package is a secret compared with ``==``. Read from the source, so new code is covered too."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.deadline(120)  # reads every line of the package: work, not waiting
PACKAGE = Path(__file__).resolve().parents[2] / "openclaw_gateway"
SECRET = re.compile(r"(token|secret|password|passphrase|digest|credential|bearer|hmac|_right)s?$", re.IGNORECASE)
# Places that compare words about secrets, or our own configuration with itself, never with what a peer sent.
HARMLESS = {
    ("app/reloading.py", "_secrets(before) != _secrets(auth)"): "two configurations of ours",
    ("ops/auditchain.py", "hashlib.sha256(line[:at] + b'}').hexdigest() != links.hash"): "a checksum of the file",
    ("queues/rows.py", "known[1] == message.digest"): "checksums of two messages in the store",
    ("config/authrules.py", "auth.type != 'token'"): "the name of a kind",
}
# The only modules that compare secrets; `hmac.compare_digest` over digests of one length is what they may use.
COMPARERS = {
    "channels/whatsapp.py",
    "client/tls.py",
    "hooks/signature.py",
    "policy/vouching.py",
    "pairing/apikeys.py",
    "pairing/familyrows.py",
    "pairing/sender_codes.py",
    "pairing/setupcodes.py",
    "pairing/tokens.py",
    "policy/secrets.py",
    "server/passwords.py",
}
# Of one length each: keyed digests under other names, and in client/dial.py hex SHA-256 of certificates.
DIGESTS = {
    "self._right",
    "want.encode()",
    "have.encode()",
    "mac",
    "self._refresh_mac(head)",
    "self.bound",
    "kept(code) or b''",
    "presented",
    "expected",  # hooks/signature.py: the digest of the same request by our secret
}


@functools.cache
def _nodes() -> tuple[tuple[str, ast.AST], ...]:
    """The comparisons and calls of the package; the trees themselves are not kept."""
    return tuple((path, node) for path, node in _read() if isinstance(node, ast.Compare | ast.Call))


def _read() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] == "testing":
            continue  # fakes of services: what they compare is no secret of anybody
        for node in ast.walk(ast.parse(path.read_text())):
            yield str(path.relative_to(PACKAGE)), node


def _name(node: ast.AST) -> str:
    """The word that says what a value is: the last part of a name, attribute, key or called function."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return ""


def _compared_plainly(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare):
        return False
    if not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
        return False
    operands = [node.left, *node.comparators]
    if any(isinstance(operand, ast.Constant) for operand in operands):
        return False  # with a word of ours: no secret is written in the source
    return any(SECRET.search(_name(operand)) for operand in operands)


def test_v15_no_secret_is_compared_with_equals() -> None:
    found = [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for path, node in _nodes()
        if _compared_plainly(node) and isinstance(node, ast.Compare) and (path, ast.unparse(node)) not in HARMLESS
    ]
    assert found == []


def test_v15_only_compare_digest_decides_and_only_over_digests() -> None:
    calls = [
        (path, node) for path, node in _nodes() if isinstance(node, ast.Call) and _name(node.func) == "compare_digest"
    ]
    assert {path for path, _ in calls} == COMPARERS
    for path, node in calls:
        assert ast.unparse(node.func) == "hmac.compare_digest"
        for argument in node.args:
            text = ast.unparse(argument)
            assert "digest" in text or text in DIGESTS, f"{path}: {text}"


def test_v15_the_lint_sees_what_it_should() -> None:
    bad = ("a.token == b", "presented != rules.password", "auth['secret'] == x", "digest(a) == other_digest")
    good = ("auth.type == 'token'", "token is None", "a == b", "len(token) == size", "kind == 'password'")
    assert [_compared_plainly(ast.parse(text, mode="eval").body) for text in bad] == [True] * 4
    assert [_compared_plainly(ast.parse(text, mode="eval").body) for text in good] == [False] * 5
