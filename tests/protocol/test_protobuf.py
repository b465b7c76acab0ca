"""The frames of openclaw.v4.proto: the same as the JSON frames, and any bytes have a defined outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openclaw_gateway.protocol import frames, protobuf
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.frames import FrameFault, Request
from openclaw_gateway.protocol.pb import frames_pb2 as pb
from openclaw_gateway.protocol.protobuf import NotJson, decode_request, decode_server_frame

from .test_protojson import canonical, objects, values

ROOT = Path(__file__).parents[2]
LIMIT = 1_000_000
METHODS = sorted({*protobuf.PARAMS, *protobuf.RESULTS, "config.get", "agent.send"})
EVENTS = [*sorted(protobuf.EVENTS), "sessions.changed", "shutdown"]
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
versions = st.none() | st.dictionaries(st.sampled_from(["presence", "health", "other"]), st.integers(0, 2**63))


def from_json(encoded: bytes) -> Any:
    return msgspec.json.decode(encoded)


# --- the same values


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=20)
@given(id_=ids, params=objects | st.none())
def test_s017_a_request_means_what_its_json_means(method: str, id_: str, params: dict[str, Any] | None) -> None:
    body: dict[str, Any] = {"type": "req", "id": id_, "method": method}
    if params is not None:
        body["params"] = params
    wanted = frames.decode_request(msgspec.json.encode(body))
    found = decode_request(protobuf.encode_request(id_, method, params), LIMIT)
    assert isinstance(wanted, Request)
    assert isinstance(found, Request)
    assert (found.type, found.id, found.method) == (wanted.type, wanted.id, wanted.method)
    assert bool(found.params) == bool(wanted.params)
    if wanted.params:
        assert canonical(from_json(found.params)) == canonical(from_json(wanted.params))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=20)
@given(id_=ids, payload=objects | values)
def test_s017_an_answer_is_the_json_answer(method: str, id_: str, payload: Any) -> None:
    wanted = from_json(frames.encode_ok(id_, payload))
    assert canonical(decode_server_frame(protobuf.encode_ok(id_, method, payload))) == canonical(wanted)
    raw = msgspec.Raw(msgspec.json.encode(payload))
    assert canonical(decode_server_frame(protobuf.encode_ok(id_, method, raw))) == canonical(wanted)


@pytest.mark.parametrize("event", EVENTS)
@settings(max_examples=20)
@given(payload=objects | values, version=versions, seq=st.none() | st.integers(1, 2**63))
@example(payload={}, version={}, seq=127)
@example(payload={}, version=None, seq=128)
def test_s017_an_event_is_the_json_event(
    event: str, payload: Any, version: dict[str, int] | None, seq: int | None
) -> None:
    raw = msgspec.Raw(msgspec.json.encode(payload))
    encoded = frames.encode_event(event, raw, state_version=version)
    wanted = from_json(encoded if seq is None else frames.splice_seq(encoded, seq))
    sent = protobuf.number_event(protobuf.encode_event(event, raw, state_version=version), seq)
    assert canonical(decode_server_frame(sent)) == canonical(wanted)


@given(id_=ids, error=objects)
def test_s017_an_error_is_the_json_error(id_: str, error: dict[str, Any]) -> None:
    wanted = from_json(frames.encode_error(id_, error))
    assert canonical(decode_server_frame(protobuf.encode_error(id_, error))) == canonical(wanted)


@pytest.mark.parametrize("payload", ["\ud800", {"a": "\ud800"}, object(), {"runId": object()}])
@pytest.mark.parametrize("method", ["chat.send", "config.get"])
def test_s017_what_cannot_be_json_is_refused_in_the_same_way(method: str, payload: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as json_says:
        frames.encode_ok("1", payload)
    with pytest.raises(json_says.type):
        protobuf.encode_ok("1", method, payload)


def test_s017_bulk_travels_in_typed_messages() -> None:
    """Were it all in ``json`` or ``more``, the laws above would hold, too."""
    for method, member in protobuf.PARAMS.items():
        frame = pb.ClientFrame.FromString(protobuf.encode_request("1", method, {}))
        assert frame.request.WhichOneof("params") == member
    for method, member in protobuf.RESULTS.items():
        answer = pb.ServerFrame.FromString(protobuf.encode_ok("1", method, {}))
        assert answer.response.WhichOneof("result") == member
    for event, member in protobuf.EVENTS.items():
        told = pb.Event.FromString(protobuf.encode_event(event, {}))
        assert told.WhichOneof("payload") == member
    chat = {"runId": "r", "sessionKey": "k", "agentId": "main", "seq": 7, "state": "delta", "deltaText": "x"}
    told = pb.Event.FromString(protobuf.encode_event("chat", chat))
    assert (told.chat.run_id, told.chat.seq, told.chat.delta_text) == ("r", 7, "x")
    assert not told.chat.HasField("more")
    for oneof, table in (
        (pb.Request.DESCRIPTOR.oneofs_by_name["params"], protobuf.PARAMS),
        (pb.Response.DESCRIPTOR.oneofs_by_name["result"], protobuf.RESULTS),
        (pb.Event.DESCRIPTOR.oneofs_by_name["payload"], protobuf.EVENTS),
    ):
        assert {field.name for field in oneof.fields} - {"json", "error"} == set(table.values())


# --- bad input

SOME_FRAMES = [
    protobuf.encode_request("7", "connect", {"client": {"id": "cli"}, "auth": {"token": "t"}, "scopes": ["a"]}),
    protobuf.encode_request("7", "chat.send", {"message": "hé", "attachments": [{"content": "QQ=="}], "x": None}),
    protobuf.encode_request("7", "config.get", {"a": [1, 2.5]}),
    protobuf.encode_ok("7", "chat.history", {"messages": [{"role": "user", "content": [{"text": "x"}]}], "n": None}),
    protobuf.number_event(protobuf.encode_event("agent", {"data": {"a": 1}}, state_version={"health": 2}), 9),
]


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SOME_FRAMES)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(data)


@given(data=st.binary(max_size=200) | mutilated())
@example(data=b"")
@example(data=b"\x0b" * 5_000)  # groups in groups
@example(data=b"\x0a\xff\xff\xff\xff\x0f")
def test_v39_any_bytes_give_a_value_or_a_fault(data: bytes) -> None:
    request = decode_request(data, LIMIT)
    if isinstance(request, Request):
        assert request.id
        assert request.method
        if request.params:
            from_json(request.params)
    else:
        assert request.fatal in {None, CloseCode.INVALID_DATA}
        assert request.json == (request.fatal is None)
    try:
        frame = decode_server_frame(data)
    except NotJson:
        pass
    else:
        assert frame["type"] in {"res", "event"}
        msgspec.json.encode(frame)
    protobuf.find_id(data)


def request(**fields: Any) -> bytes:
    return pb.ClientFrame(request=pb.Request(**fields)).SerializeToString()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", FrameFault("must be a ClientFrame with a request", json=True)),
        (SOME_FRAMES[3], FrameFault("must be a ClientFrame with a request", json=True)),
        (request(id="1", method="health") + b"\x12\x00", FrameFault("must be a ClientFrame with a request", True, "1")),
        (request(), FrameFault("id and method must not be empty", json=True)),
        (request(id="1"), FrameFault("id and method must not be empty", True, "1")),
        (request(method="health"), FrameFault("id and method must not be empty", True)),
        (request(id="i" * 257, method="m"), FrameFault("id and method must be at most 256 characters", True)),
        (request(id="1", method="m" * 257), FrameFault("id and method must be at most 256 characters", True, "1")),
        (request(id="1", method="health", json=b""), FrameFault("not JSON", True, "1")),
        (request(id="1", method="health", json=b'{"a":"\xff"}'), FrameFault("not JSON", True, "1")),
        (request(id="1", method="health", json=b"{} {}"), FrameFault("not JSON", True, "1")),
        (
            request(id="1", method="health", logs_tail={"limit": 1}),
            FrameFault("Request.logs_tail is not for the method that it names", True, "1"),
        ),
        (
            request(id="1", method="logs.tail", logs_tail={"limit": 1, "more": b'{"limit":2}'}),
            FrameFault("LogsTailParams.more: repeats a member that has its own field", True, "1"),
        ),
        (b"{}", FrameFault("not a frame of openclaw.v4.proto", json=False, fatal=CloseCode.INVALID_DATA)),
        (b'{"type":"req"}', FrameFault("not a frame of openclaw.v4.proto", json=False, fatal=CloseCode.INVALID_DATA)),
        (b"\x0a\x03\x0a\x01\xff", FrameFault("not a frame of openclaw.v4.proto", False, fatal=CloseCode.INVALID_DATA)),
    ],
)
def test_v39_what_is_not_a_request_is_explained(data: bytes, fault: FrameFault) -> None:
    assert decode_request(data, LIMIT) == fault


def test_v39_a_request_with_a_field_of_a_newer_schema_is_refused() -> None:
    """It might forbid what would be done without it: JSON refuses unknown members for the same reason."""
    frame = pb.ClientFrame(request=pb.Request(id="1", method="health"))
    frame.request.MergeFromString(b"\xf8\x3f\x01")
    assert decode_request(frame.SerializeToString(), LIMIT) == FrameFault(
        "Request has a field that is not known here", json=True, id="1"
    )


def test_v39_a_frame_within_the_limit_is_within_it_as_json_too() -> None:
    """One control character is one byte here and six in JSON: a message must not grow behind its own limit."""
    bomb = protobuf.encode_request("1", "chat.send", {"message": "\x01" * 1000})
    assert len(bomb) < 1100
    assert decode_request(bomb, 5_000) == FrameFault("too long as JSON", True, "1", fatal=CloseCode.TOO_BIG)
    fits = decode_request(bomb, 6_500)
    assert isinstance(fits, Request)
    assert len(fits.params) > 6_000
    # What only looks long is let through: line ends and quotes take one byte more, not five.
    calm = decode_request(protobuf.encode_request("1", "chat.send", {"message": '\n"' * 500}), 2_500)
    assert isinstance(calm, Request)
    assert 2_000 < len(calm.params) <= 2_500


@pytest.mark.parametrize("data", [b"", SOME_FRAMES[0], b"\x12\x00", b"\x1a\x00", b"\x1a\x06\x0a\x04tick", b"\xff"])
def test_v39_a_server_frame_that_says_nothing_is_refused(data: bytes) -> None:
    with pytest.raises(NotJson):
        decode_server_frame(data)


def test_ws1_the_id_of_a_request_over_the_limit_is_found_in_its_beginning() -> None:
    long = protobuf.encode_request("request-9", "chat.send", {"message": "x" * 100_000})
    assert protobuf.find_id(long[:2048]) == "request-9"
    assert protobuf.find_id(long[:8]) is None
    assert frames.find_id(b'{"type":"req","id":"request-9","params":{"a":') == "request-9"
    assert frames.find_id(b'{"type":"req"') is None


# --- the published schema


def test_s017_bytes_on_the_wire_stay_what_they_are() -> None:
    """Clients in other languages were made from the same .proto: a number that moves breaks them all."""
    sent = protobuf.encode_request("1", "chat.send", {"sessionKey": "main", "message": "hi", "idempotencyKey": "k"})
    assert sent.hex() == "0a1e0a01311209636861742e73656e648a010d0a046d61696e120268691a016b"
    event = protobuf.number_event(protobuf.encode_event("tick", {"ts": 1}), 300)
    assert event.hex() == "1a0e0a047469636baa0102080110ac02"
    assert protobuf.encode_error("1", {"code": "X"}).hex() == "12080a013112030a0158"


def test_s017_the_schema_uses_typed_messages_never_struct() -> None:
    sources = sorted((ROOT / "proto").rglob("*.proto"))
    assert len(sources) == 5
    for source in sources:
        text = source.read_text(encoding="utf-8")
        assert 'syntax = "proto3";' in text
        assert "google/protobuf/" not in text
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            assert field.message_type is None or field.message_type.full_name.startswith("openclaw.v4.")


def test_s017_the_committed_code_is_what_the_proto_files_give(tmp_path: Path) -> None:
    made = tmp_path / "pb"
    subprocess.run(
        [ROOT / "scripts" / "proto", made], env={**os.environ, "PYTHON": sys.executable}, check=True, timeout=60
    )
    committed = ROOT / "openclaw_gateway" / "protocol" / "pb"
    wanted = {path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    found = {
        path.relative_to(committed): path.read_bytes()
        for path in committed.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name != "__init__.py"
    }
    assert wanted == found
    assert len([path for path in wanted if path.suffix == ".proto"]) == 5


def test_s017_the_reference_names_every_typed_message() -> None:
    page = (ROOT / "docs" / "reference" / "protobuf.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]

    def message(kind: Any, member: str | None) -> str:
        return "json" if member is None else kind.DESCRIPTOR.fields_by_name[member].message_type.name

    for method in {*protobuf.PARAMS, *protobuf.RESULTS}:
        params = message(pb.Request, protobuf.PARAMS.get(method))
        assert [method, params, message(pb.Response, protobuf.RESULTS.get(method))] in rows
    for event, member in protobuf.EVENTS.items():
        assert [event, message(pb.Event, member)] in rows
