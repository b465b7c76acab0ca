"""The race of the routes: who wins, what is closed, and what is never used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.client import ClientClosed, ConnectFailed, Credentials
from openclaw_gateway.client.resolve import Target
from openclaw_gateway.client.route_dial import open_route
from openclaw_gateway.client.routes import plan_routes
from openclaw_gateway.config.schema import RemoteConfig, RouteConfig, TlsConfig
from openclaw_gateway.nodes.host.verdicts import judge_refusal


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway(GatewayConfig(port=0)) as running:
        yield running


def target(*routes: RouteConfig, state: Path | None = None) -> Target:
    planned = plan_routes(RemoteConfig(routes=routes))
    return Target(
        address=planned[0].address, source="test", credentials=Credentials(token="t"), secret_source="test",
        fingerprint=None, local=False, routes=planned, state=state,
    )  # fmt: skip


def direct(port: int, **fields: Any) -> RouteConfig:
    return RouteConfig(url=f"ws://127.0.0.1:{port}", **fields)


async def free_port() -> int:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


async def test_a_target_without_routes_comes_back_as_it_is() -> None:
    import attrs

    plain = attrs.evolve(target(direct(1)), routes=())
    async with open_route(plain) as reached:
        assert reached is plain


async def test_a_refused_route_gives_way_at_once(gateway: Gateway) -> None:
    with trio.fail_after(5):
        async with open_route(target(direct(await free_port()), direct(gateway.port))) as reached:
            assert reached.address.port == gateway.port
            assert reached.via == f"ws://127.0.0.1:{gateway.port}"
            assert reached.routes == ()


async def test_all_failed_names_every_route() -> None:
    one, two = await free_port(), await free_port()
    with pytest.raises(ConnectFailed) as caught, trio.fail_after(5):
        async with open_route(target(direct(one), direct(two))):
            raise AssertionError("not reached")
    assert str(one) in caught.value.url
    assert any(str(two) in note for note in caught.value.__notes__)


async def test_what_time_cannot_mend_of_one_route_is_not_said_of_all() -> None:
    """A node stops for good over an address that cannot be right; here its other route may be back in a minute."""
    two = await free_port()
    routes = (RouteConfig(url="ws://127.0.0.1:9", tls_fingerprint="0" * 64), direct(two))
    with pytest.raises(ConnectFailed) as caught, trio.fail_after(5):
        async with open_route(target(*routes)):
            raise AssertionError("not reached")
    assert (caught.value.stage, judge_refusal(caught.value)) == ("tcp", "retry")
    assert str(two) in caught.value.url
    assert any("127.0.0.1:9" in note and "no certificate" in note for note in caught.value.__notes__)
    with pytest.raises(ConnectFailed) as alone, trio.fail_after(5):
        async with open_route(target(routes[0])):
            raise AssertionError("not reached")
    assert judge_refusal(alone.value) == "stop"


async def test_silence_ends_at_the_deadline() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with pytest.raises(ConnectFailed, match="no answer within"), trio.fail_after(5):
            async with open_route(target(direct(port), direct(await free_port())), timeout=0.6):
                raise AssertionError("not reached")


async def test_what_is_no_gateway_is_not_chosen(gateway: Gateway) -> None:
    async def broken(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, broken, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with open_route(target(direct(port), direct(gateway.port))) as reached:
            assert reached.address.port == gateway.port
        nursery.cancel_scope.cancel()


async def test_v39_a_route_with_another_certificate_is_not_chosen(tmp_path: Path, gateway: Gateway) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    config = GatewayConfig(port=0, tls=TlsConfig(enabled=True), state_dir=state)
    async with open_gateway(config) as encrypted:
        url = f"wss://127.0.0.1:{encrypted.port}"
        wrong = RouteConfig(url=url, tls_fingerprint="0" * 64)
        async with open_route(target(wrong, direct(gateway.port))) as reached:
            assert not reached.address.tls
        with pytest.raises(ConnectFailed) as caught:
            async with open_route(target(wrong)):
                raise AssertionError("not reached")
        assert caught.value.stage == "tls"
        right = RouteConfig(url=url, tls_fingerprint=encrypted.tls_fingerprint)
        async with open_route(target(right, direct(gateway.port))) as reached:
            assert reached.tls_fingerprint == encrypted.tls_fingerprint


async def test_a_tailnet_route_that_leads_elsewhere_is_refused(gateway: Gateway) -> None:
    """A name on the tailnet may be dialled unencrypted only because it leads there."""
    route = RouteConfig(transport="tailnet", url=f"ws://localhost:{gateway.port}")
    with pytest.raises(ConnectFailed, match="does not lead into the tailnet"):
        async with open_route(target(route)):
            raise AssertionError("not reached")


async def test_the_winner_is_remembered_and_comes_first(
    mock_clock: trio.testing.MockClock, tmp_path: Path, gateway: Gateway
) -> None:
    """Time stands still once there is a winner to remember: whoever waited for the silent route would wait for ever."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        silent = direct(listener.socket.getsockname()[1])
        aim = target(silent, direct(gateway.port), state=tmp_path)
        mock_clock.rate = 1
        async with open_route(aim):
            pass
        mock_clock.rate = 0
        async with open_route(aim) as reached:
            assert reached.address.port == gateway.port
        mock_clock.rate = 1
        (tmp_path / "run" / "route.json").write_text("garbage")
        async with open_route(aim) as reached:
            assert reached.address.port == gateway.port


async def test_a_route_that_dies_ends_the_block(gateway: Gateway) -> None:
    async with open_gateway(GatewayConfig(port=0)) as second:

        async def follow() -> None:
            async with open_route(target(direct(second.port), direct(gateway.port)), pulse=True) as reached:
                assert reached.address.port == second.port
                second.request_stop()
                await trio.sleep_forever()

        with pytest.raises(ClientClosed, match="the route is gone"), trio.fail_after(5):
            await follow()


async def test_what_the_block_raises_leaves_as_itself(gateway: Gateway) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with open_route(target(direct(gateway.port), direct(await free_port())), pulse=True):
            raise ValueError("mine")


async def test_cancelling_leaves_nothing(gateway: Gateway) -> None:
    with trio.CancelScope() as scope:
        async with open_route(target(direct(gateway.port), direct(await free_port())), pulse=True):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
