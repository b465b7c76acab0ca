"""The subprotocol openclaw.v4.proto on a real port: who gets it, its limits, and what malformed messages end in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openclaw_gateway.protocol import protobuf
from openclaw_gateway.protocol.pb import frames_pb2 as pb
from openclaw_gateway.server.dialect import PROTOBUF, choose_subprotocol

from .conftest import MAX_MESSAGE, TOKEN, OpenServer
from .rawclient import BINARY, CONTINUATION, TEXT, RawClient, frame

PRE_AUTH = 64 * 1024


def connect_params(**changes: Any) -> dict[str, Any]:
    return {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": "gateway-client", "version": "0.0.0", "platform": "linux", "mode": "backend"},
        "role": "operator",
        "scopes": ["operator.admin"],
        "caps": [],
        "auth": {"token": TOKEN},
        **changes,
    }


async def read(client: RawClient) -> dict[str, Any]:
    """The next answer; events are left out."""
    while True:
        message = await read_any(client)
        if message["type"] == "res":
            return message


async def read_any(client: RawClient) -> dict[str, Any]:
    got = await client.read_frame()
    assert got is not None, "connection ended"
    assert got.opcode == BINARY, got
    return protobuf.decode_server_frame(got.payload)


async def greet(client: RawClient, offered: str = PROTOBUF) -> dict[str, Any]:
    headers = await client.upgrade(sec_websocket_protocol=offered)
    assert headers["sec-websocket-protocol"] == PROTOBUF
    challenge = await read_any(client)
    assert challenge["event"] == "connect.challenge"
    payload: dict[str, Any] = challenge["payload"]
    return payload


async def hello(client: RawClient) -> dict[str, Any]:
    await greet(client)
    await client.send(frame(BINARY, protobuf.encode_request("1", "connect", connect_params())))
    answer = await read(client)
    assert answer["ok"], answer
    payload: dict[str, Any] = answer["payload"]
    return payload


async def assert_alive(client: RawClient) -> None:
    await client.send(frame(BINARY, protobuf.encode_request("alive", "last-heartbeat", None)))
    assert await read(client) == {"type": "res", "id": "alive", "ok": True, "payload": None}


async def ended(client: RawClient) -> tuple[int, str]:
    got = await client.read_close()
    return got.close_code, got.payload[2:].decode()


# --- who gets it


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        (["openclaw"], "openclaw"),
        ([PROTOBUF], PROTOBUF),
        (["foreign", PROTOBUF], PROTOBUF),
        (["openclaw.v4", PROTOBUF], "openclaw.v4"),
        ([PROTOBUF, "openclaw.v4"], PROTOBUF),
        (["openclaw.v5.proto"], "openclaw.v5.proto"),
    ],
)
def test_c21_the_first_of_our_names_is_chosen(offered: list[str], chosen: str | None) -> None:
    assert choose_subprotocol(offered) == chosen


@pytest.mark.parametrize("offered", [PROTOBUF, f"foreign, {PROTOBUF}, openclaw.v4"])
async def test_c21_who_asks_speaks_protocol_buffers(offered: str, port: int) -> None:
    async with await RawClient.dial(port) as client:
        challenge = await greet(client, offered)
        assert challenge.keys() >= {"nonce", "ts"}
        await client.send(frame(BINARY, protobuf.encode_request("c", "connect", connect_params())))
        answer = await read(client)
        assert (answer["id"], answer["ok"], answer["payload"]["type"]) == ("c", True, "hello-ok")
        assert answer["payload"]["policy"]["maxPayload"] == MAX_MESSAGE
        await assert_alive(client)


@pytest.mark.parametrize("offered", ["openclaw.v4", f"openclaw.v4, {PROTOBUF}", "openclaw.v3.proto"])
async def test_c21_who_does_not_ask_first_speaks_json(offered: str, port: int) -> None:
    async with await RawClient.dial(port) as client:
        headers = await client.upgrade(sec_websocket_protocol=offered)
        assert headers["sec-websocket-protocol"] == offered.split(",")[0]
        await client.read_challenge()
        await client.send(frame(TEXT, client.connect_request(TOKEN)))
        assert (await client.read_message())["ok"]
        await client.assert_alive()


async def test_c21_a_message_in_fragments_is_one_message(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await hello(client)
        data = protobuf.encode_request("f", "last-heartbeat", None)
        await client.send(frame(BINARY, data[:3], fin=False) + frame(CONTINUATION, data[3:]))
        assert (await read(client))["id"] == "f"


# --- the same admission


@pytest.mark.parametrize(
    "changes",
    [{"auth": {"token": "wrong-token-0123456789"}}, {"auth": {}}, {"minProtocol": 9, "maxProtocol": 9}, {"client": 1}],
    ids=["wrong-token", "no-token", "protocol", "schema"],
)
async def test_c21_who_is_refused_hears_what_a_json_client_hears(changes: dict[str, Any], port: int) -> None:
    heard: list[Any] = []
    async with await RawClient.dial(port) as client:
        await client.upgrade()
        await client.read_challenge()
        await client.send(frame(TEXT, client.request("connect", connect_params(**changes), id_="c")))
        heard.append((await client.read_message(), await ended(client)))
    async with await RawClient.dial(port) as client:
        await greet(client)
        await client.send(frame(BINARY, protobuf.encode_request("c", "connect", connect_params(**changes))))
        heard.append((await read(client), await ended(client)))
    assert heard[0] == heard[1]
    assert not heard[1][0]["ok"]
    assert heard[1][0]["error"]["code"]


async def test_c21_connect_comes_first(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await greet(client)
        await client.send(frame(BINARY, protobuf.encode_request("1", "health", {})))
        answer = await read(client)
        assert not answer["ok"]
        assert (await ended(client))[0] == 1008


# --- malformed messages

UNSPOKEN = (1007, "not a frame of openclaw.v4.proto")
JSON_TEXT = msgspec.json.encode({"type": "req", "id": "1", "method": "connect", "params": connect_params()})


@pytest.mark.parametrize(
    ("opcode", "data", "close"),
    [
        (BINARY, b"\xff", UNSPOKEN),
        (BINARY, JSON_TEXT, UNSPOKEN),
        (TEXT, JSON_TEXT, UNSPOKEN),
        (BINARY, b'{"jsonrpc":"2.0","method":"health","id":1}', UNSPOKEN),
        (BINARY, b"\x0b" * 4000, UNSPOKEN),
        (BINARY, b"", (1008, "invalid request frame")),
        (BINARY, b"\x0a\x00", (1008, "invalid request frame")),
        (BINARY, b"\x12\x02\x0a\x00", (1008, "invalid request frame")),
    ],
)
async def test_v39_a_stranger_who_sends_what_is_no_request_is_closed(
    opcode: int, data: bytes, close: tuple[int, str], port: int
) -> None:
    async with await RawClient.dial(port) as client:
        await greet(client)
        await client.send(frame(opcode, data))
        assert await ended(client) == close


async def test_v39_no_protocol_buffers_after_hello_end_the_connection_too(port: int) -> None:
    for opcode, data in ((BINARY, b"\xff\xff"), (TEXT, b'{"type":"req","id":"1","method":"health"}')):
        async with await RawClient.dial(port) as client:
            await hello(client)
            await client.send(frame(opcode, data))
            assert await ended(client) == UNSPOKEN


@pytest.mark.parametrize(
    ("data", "id_", "fault"),
    [
        (b"", "invalid", "must be a ClientFrame"),
        (pb.ClientFrame(request=pb.Request(id="7")).SerializeToString(), "7", "must not be empty"),
        (pb.ClientFrame(request=pb.Request(id="7", method="health", json=b"{")).SerializeToString(), "7", "not JSON"),
        (
            pb.ClientFrame(request=pb.Request(id="7", method="x", logs_tail={"limit": 1})).SerializeToString(),
            "7",
            "not for the method",
        ),
    ],
)
async def test_v39_what_is_no_request_is_answered_and_the_connection_lives(
    data: bytes, id_: str, fault: str, port: int
) -> None:
    async with await RawClient.dial(port) as client:
        await hello(client)
        await client.send(frame(BINARY, data))
        answer = await read(client)
        assert (answer["id"], answer["ok"], answer["error"]["code"]) == (id_, False, "INVALID_REQUEST")
        assert fault in answer["error"]["message"]
        await assert_alive(client)


BAD_PARAMS: list[Any] = [{"limit": 1, "surprise": 1}, {"limit": "many"}, {"limit": 1.5}, {"limit": True}, [1], "x"]


async def test_v39_parameters_are_checked_as_in_json(port: int) -> None:
    async with await RawClient.dial(port) as proto, await RawClient.dial(port) as plain:
        await hello(proto)
        await plain.hello(TOKEN)
        for params in BAD_PARAMS:
            await proto.send(frame(BINARY, protobuf.encode_request("1", "logs.tail", params)))
            await plain.send(frame(TEXT, plain.request("logs.tail", params, id_="1")))
            answer = await plain.read_message()
            assert answer == await read(proto)
            assert not answer["ok"], params


# --- limits


async def test_ws1_before_admission_a_message_has_64_kib(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await greet(client)
        await client.send(frame(BINARY, b"", length=PRE_AUTH + 1))
        assert (await ended(client))[0] == 1009


async def test_ws1_before_admission_a_message_has_64_kib_of_json(port: int) -> None:
    """11 KiB that would be 66 KiB of JSON."""
    async with await RawClient.dial(port) as client:
        await greet(client)
        bomb = protobuf.encode_request("1", "connect", connect_params(pathEnv="\x01" * (PRE_AUTH // 6 + 1)))
        assert len(bomb) < PRE_AUTH / 4
        await client.send(frame(BINARY, bomb))
        assert await ended(client) == (1009, "too long as JSON")


async def test_ws1_over_the_limit_the_request_is_answered_by_its_id_and_the_connection_ends(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await hello(client)
        await client.send(
            frame(BINARY, protobuf.encode_request("big", "chat.send", {"message": "x" * (MAX_MESSAGE + 1)}))
        )
        answer = await read(client)
        assert (answer["id"], answer["ok"]) == ("big", False)
        assert (await ended(client))[0] == 1009


async def test_ws1_over_the_limit_as_json_ends_in_the_same_way(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await hello(client)
        bomb = protobuf.encode_request("bomb", "chat.send", {"message": "\x01" * (MAX_MESSAGE // 5)})
        assert len(bomb) < MAX_MESSAGE / 4
        await client.send(frame(BINARY, bomb))
        answer = await read(client)
        assert (answer["id"], answer["ok"]) == ("bomb", False)
        assert (await ended(client))[0] == 1009


async def test_rob1_one_bad_protobuf_client_harms_no_other(open_server: OpenServer) -> None:
    async with open_server() as port, await RawClient.dial(port) as json_client, await RawClient.dial(port) as good:
        await json_client.hello(TOKEN)
        await hello(good)
        for bad in (b"\xff", b"\x0b" * 60_000, b"\x0a\xff\xff\xff\xff\x0f", b"\x08" * 60_000):
            async with await RawClient.dial(port) as client:
                await greet(client)
                await client.send(frame(BINARY, bad))
                assert (await ended(client))[0] in {1007, 1008}
        await json_client.assert_alive()
        await assert_alive(good)


# --- what it costs those who do not use it

LOADING = """
import sys, trio
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway, open_memory_stream

async def main():
    async with open_memory_gateway() as gateway:
        async with connect_peer(gateway) as peer:
            await peer.request("health")
        print(any(name.startswith("google") for name in sys.modules))
        async with open_memory_stream(gateway) as stream:
            await ScriptedPeer(stream).upgrade(headers={"Sec-WebSocket-Protocol": "openclaw.v4.proto"})
        print(any(name.startswith("google") for name in sys.modules))

trio.run(main)
"""


def test_perf3_the_runtime_is_loaded_for_the_first_client_that_asks() -> None:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", LOADING],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        check=False,
        timeout=25,
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
