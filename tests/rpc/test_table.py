"""The method table: who may call what, in which words a call is refused (spec wire.md section 5), live views."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway import CallContext, CallError, LocalProtocolError
from openclaw_gateway.rpc import table as table_module
from openclaw_gateway.rpc.table import ANY_OPERATOR, MethodTable, NoParams, ParamsReader, camel

READ, WRITE, ADMIN = "operator.read", "operator.write", "operator.admin"


@attrs.frozen
class Params:
    node_id: str
    limit: int = 1
    tags: tuple[str, ...] = ()
    probe: bool | None = None


@attrs.frozen
class Optional:
    limit: int = 7


def nothing(context: CallContext, params: Any) -> None:
    return None


def _fault(reader: ParamsReader, raw: bytes) -> str:
    with pytest.raises(CallError) as failed:
        reader.read("node.list", msgspec.Raw(raw))
    assert failed.value.error.code == "INVALID_REQUEST"
    return failed.value.error.message


def test_no_params_refuses_members_with_the_path() -> None:
    reader = ParamsReader(NoParams)
    for empty in (b"", b"{}", b"null", b"{ }"):
        assert isinstance(reader.read("node.list", msgspec.Raw(empty)), NoParams)
    assert _fault(reader, b'{"zzz":1}') == "invalid node.list params: at root: unexpected property 'zzz'"


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"{}", "at root: must have required property 'nodeId'"),
        (b"[]", "at root: must be object"),
        (b"17", "at root: must be object"),
        (b"{", "at root: must be object"),
        (b'{"nodeId":1}', "at /nodeId: must be string"),
        (b'{"nodeId":"n","limit":"x"}', "at /limit: must be integer"),
        (b'{"nodeId":"n","probe":1}', "at /probe: must be boolean or null"),
        (b'{"nodeId":"n","node_id":"n"}', "at root: unexpected property 'node_id'"),
        (b'{"nodeId":"n","tags":[1]}', "at /tags/0: must be string"),
    ],
)
def test_faults_name_path_and_expectation(raw: bytes, fault: str) -> None:
    assert _fault(ParamsReader(Params), raw) == f"invalid node.list params: {fault}"


def test_names_are_camel_case_on_the_wire() -> None:
    read = ParamsReader(Params).read("m", msgspec.Raw(b'{"nodeId":"n","limit":3,"tags":["a"],"probe":true}'))
    assert read == Params("n", 3, ("a",), True)
    assert ParamsReader(Optional).read("m", msgspec.Raw(b"")) == Optional(7)
    assert camel("last_input_seconds") == "lastInputSeconds"


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_params_give_a_value_or_a_call_error(raw: bytes) -> None:
    try:
        value = ParamsReader(Params).read("m", msgspec.Raw(raw))
    except CallError as exc:
        assert exc.error.message.startswith("invalid m params: at ")  # noqa: PT017 - either outcome is lawful
    else:
        assert isinstance(value, Params)


def test_a_long_unknown_member_is_not_echoed_whole() -> None:
    assert len(_fault(ParamsReader(NoParams), b'{"%b":1}' % (b"z" * 5000))) < 200


def test_default_deny_a_method_needs_a_known_scope() -> None:
    table = MethodTable()
    for scope in (None, "", "operator.king", "node"):
        with pytest.raises(LocalProtocolError, match="known operator scope"):
            table.method("x", scope=scope)
    with pytest.raises(LocalProtocolError, match="role"):
        table.method("x", scope=READ, role="king")
    with pytest.raises(LocalProtocolError, match="attrs class"):
        table.method("x", scope=READ, params=dict)(nothing)


def test_a_name_is_registered_once_unless_replaced_or_only_declared() -> None:
    table = MethodTable()
    table.declare("agent.send", scope=WRITE)
    table.method("agent.send", scope=WRITE)(nothing)
    with pytest.raises(LocalProtocolError, match="replace=True"):
        table.method("agent.send", scope=WRITE)(nothing)
    table.method("agent.send", scope=ADMIN, replace=True)(nothing)
    spec = table.get("agent.send")
    assert spec is not None
    assert (spec.scope, spec.placeholder) == (ADMIN, False)


def test_there_is_a_cap_on_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    assert table_module._MAX_METHODS == 4096
    monkeypatch.setattr(table_module, "_MAX_METHODS", 2)
    table = MethodTable()
    table.method("a", scope=READ)(nothing)
    table.method("b", scope=READ)(nothing)
    with pytest.raises(LocalProtocolError, match="more than 2 methods"):
        table.method("c", scope=READ)(nothing)
    table.method("a", scope=READ, replace=True)(nothing)


def test_v41_views_hold_what_a_grant_may_call_and_are_live() -> None:
    table = MethodTable()
    table.method("any", scope=ANY_OPERATOR)(nothing)
    table.method("read", scope=READ)(nothing)
    table.method("node.only", role="node")(nothing)
    none, read, admin, node = (
        table.view("operator", frozenset()),
        table.view("operator", frozenset({READ})),
        table.view("operator", frozenset({ADMIN})),
        table.view("node", frozenset()),
    )
    assert [sorted(view) for view in (none, read, admin, node)] == [
        ["any"],
        ["any", "read"],
        ["any", "read"],
        ["node.only"],
    ]
    table.method("later", scope=WRITE)(nothing)
    assert ["later" in view for view in (none, read, admin, node)] == [False, False, True, False]
    table.method("read", scope=ADMIN, replace=True)(nothing)
    assert ["read" in view for view in (none, read, admin, node)] == [False, False, True, False]
    table.remove("later")
    assert "later" not in admin
    # Scopes that are not known make no view of their own: the number of views has a bound.
    assert table.view("operator", frozenset({READ, "mine", "yours"})) is read


def test_refusals_in_the_words_of_the_wire() -> None:
    table = MethodTable()
    table.method("w", scope=WRITE)(nothing)
    table.method("n", role="node")(nothing)
    read, admin = frozenset({READ}), frozenset({ADMIN})
    missing = table.refusal("w", "operator", read).to_wire()
    assert missing == {
        "code": "FORBIDDEN",
        "message": "missing scope: operator.write",
        "details": {"code": "MISSING_SCOPE", "missingScope": WRITE, "requiredScopes": [WRITE]},
    }
    assert table.refusal("nope", "operator", admin).to_wire() == {
        "code": "INVALID_REQUEST",
        "message": "unknown method: nope",
    }
    # Who is no admin learns nothing of what exists; this is also the answer to a second connect.
    assert table.refusal("nope", "operator", read).message == "missing scope: operator.admin"
    assert table.refusal("connect", "operator", read).message == "missing scope: operator.admin"
    assert table.refusal("n", "operator", admin).message == "unauthorized role: operator"
    assert table.refusal("w", "node", frozenset()).message == "unauthorized role: node"
    assert table.refusal("nope", "node", frozenset()).message == "unauthorized role: node"


def test_unadvertised_methods_can_be_called_but_are_not_listed() -> None:
    table = MethodTable()
    table.method("hidden", scope=READ, advertised=False)(nothing)
    assert table.names == []
    assert "hidden" in table.view("operator", frozenset({READ}))
