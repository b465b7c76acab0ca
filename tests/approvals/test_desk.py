"""The approval page at a gateway: what a person who may decide sees and does, step by step."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig, ControlUiConfig, HttpConfig, TransportsConfig
from openclaw_gateway.config.secrets import resolve_auth
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.store import StoreUnavailable
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway
from tests.nodes.scripted import COMMANDS, node_peer

from .visitor import FAR, PATH, Page, Visitor, knock

TOKEN = "token-of-the-tests-of-the-approval-page-0123"
CONFIG = GatewayConfig(port=0, auth=AuthConfig(type="token", token=TOKEN))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_memory_gateway(CONFIG) as gateway:
        yield gateway


@pytest.fixture
async def operator(gateway: Gateway) -> AsyncIterator[ScriptedPeer]:
    async with connect_peer(gateway) as peer:
        yield peer


@pytest.fixture
def visitor(gateway: Gateway) -> Visitor:
    return Visitor(gateway)


@pytest.fixture
def device() -> DeviceIdentity:
    return DeviceIdentity.generate()


async def waiting(operator: ScriptedPeer) -> list[str]:
    return [row["requestId"] for row in (await operator.request("device.pair.list"))["pending"]]


async def test_s091_a_node_is_let_in_and_lends_its_commands_by_two_presses_each(
    gateway: Gateway, operator: ScriptedPeer, visitor: Visitor, device: DeviceIdentity
) -> None:
    request_id = await knock(gateway, device)
    first = await visitor.open(request_id)
    assert (first.status, first.heading) == (200, "Approve a device")
    assert f'value="{request_id}"' in first.raw
    shown = await visitor.show(request_id, TOKEN)
    assert (shown.status, shown.heading) == (200, "“ Node One ” wants to join as a node")
    assert device.device_id in shown.text
    assert FAR in shown.text
    for command in COMMANDS:
        assert command in shown.text
    approved = await visitor.press(shown, "approve")
    assert (approved.status, approved.heading) == (200, "Approved")
    assert await waiting(operator) == []

    early = await visitor.press(approved, "next")
    assert early.heading == "Waiting for “ Node One ”"
    async with node_peer(gateway, device, address=FAR):
        await operator.expect_event("node.pair.requested")
        offered = await visitor.press(early, "next")
        assert offered.heading == "“ Node One ” offers commands"
        assert "can run programs there" in offered.text
        lent = await visitor.press(offered, "approve")
        assert (lent.status, lent.heading) == (200, "Approved")
        (node,) = (await operator.request("node.pair.list"))["paired"]
        assert node["commands"] == sorted(COMMANDS)
        # The old link is still of use: it says where the node stands.
        again = await visitor.show(request_id, TOKEN)
        assert (again.heading, again.status) == ("All is decided", 200)
        assert "online" in again.text


async def test_s091_a_request_is_rejected(
    gateway: Gateway, operator: ScriptedPeer, visitor: Visitor, device: DeviceIdentity
) -> None:
    request_id = await knock(gateway, device)
    done = await visitor.press(await visitor.show(request_id, TOKEN), "reject")
    assert (done.status, done.heading) == (200, "Rejected")
    assert done.text.endswith("Node One was not let in.")
    assert await waiting(operator) == []
    resolved = await operator.expect_event("device.pair.resolved")
    assert (resolved["requestId"], resolved["decision"]) == (request_id, "rejected")
    again = await visitor.show(request_id, TOKEN)
    assert again.heading == "Decided already"
    assert "rejected already" in again.text


async def test_s091_what_a_node_offers_is_rejected(
    gateway: Gateway, operator: ScriptedPeer, visitor: Visitor, device: DeviceIdentity
) -> None:
    async with node_peer(gateway, device):
        request_id = (await operator.expect_event("node.pair.requested"))["requestId"]
        done = await visitor.press(await visitor.show(request_id, TOKEN), "reject")
        assert (done.heading, done.status) == ("Rejected", 200)
        (node,) = (await operator.request("node.pair.list"))["paired"]
        assert node["commands"] == []


async def test_audit1_a_decision_leaves_the_same_row_as_the_method(tmp_path: Path) -> None:
    config = attrs.evolve(CONFIG, state_dir=tmp_path / "state")
    async with open_memory_gateway(config) as gateway, connect_peer(gateway) as operator:
        visitor = Visitor(gateway)
        for step in ("approve", "reject"):
            first, second = [await knock(gateway, DeviceIdentity.generate()) for _ in range(2)]
            await visitor.press(await visitor.show(first, TOKEN), step)
            await operator.request(f"device.pair.{step}", {"requestId": second})
        text = (config.state_dir / "audit" / "audit.jsonl").read_text() if config.state_dir else ""
    rows = [json.loads(line) for line in text.splitlines()]
    for action in ("pairing.approved", "pairing.rejected"):
        by_page, by_method = [row for row in rows if row["action"] == action]
        assert set(by_page) == set(by_method)
        assert (by_page["actor"], by_page["outcome"]) == (by_method["actor"], "ok")
    assert TOKEN not in text


async def test_pair5_what_is_asked_for_by_now_is_shown_and_what_was_shown_is_decided(
    gateway: Gateway, operator: ScriptedPeer, visitor: Visitor, device: DeviceIdentity
) -> None:
    """Superseded: the link leads on to the wider request; a page that showed the narrow one grants nothing of it."""
    narrow = await knock(gateway, device, commands=["system.which"])
    old = await visitor.show(narrow, TOKEN)
    wide = await knock(gateway, device, commands=["system.which", "system.run"])
    assert wide != narrow
    pressed = await visitor.press(old, "approve")
    assert pressed.buttons["approve"]["request"] == wide  # it is shown instead
    assert "system.run" in pressed.text
    assert await waiting(operator) == [wide]
    followed = await visitor.show(narrow, TOKEN)
    assert followed.buttons["approve"]["request"] == wide


async def test_an_operator_is_let_in_and_that_is_all(
    gateway: Gateway, visitor: Visitor, device: DeviceIdentity
) -> None:
    with pytest.raises(CallFailed) as refused:
        async with connect_peer(gateway, device=device, address=FAR, scopes=["operator.read"]):
            pass
    assert refused.value.details is not None
    request_id = str(refused.value.details["requestId"])
    shown = await visitor.show(request_id, TOKEN)
    assert "as an operator" in shown.heading
    assert "operator.read" in shown.text
    done = await visitor.press(shown, "approve")
    assert done.heading == "Approved"
    assert done.buttons == {}
    again = await visitor.show(request_id, TOKEN)
    assert "approved already" in again.text


@pytest.mark.parametrize("request_id", ["unknown", "", "<b>"])
async def test_s091_what_is_unknown_says_what_helps(visitor: Visitor, request_id: str) -> None:
    page = await visitor.show(request_id, TOKEN)
    assert (page.status, page.heading) == (404, "No such request waits")
    assert "openclaw devices list" in page.text


async def test_s091_a_request_whose_time_is_over_is_unknown(
    gateway: Gateway, visitor: Visitor, device: DeviceIdentity
) -> None:
    request_id = await knock(gateway, device)
    shown = await visitor.show(request_id, TOKEN)
    await gateway._book.expire(now_ms() + CONFIG.pairing.request_ttl_ms + 1)
    assert (await visitor.press(shown, "approve")).status == 404


async def test_two_who_decide_at_once(
    gateway: Gateway, operator: ScriptedPeer, visitor: Visitor, device: DeviceIdentity
) -> None:
    request_id = await knock(gateway, device)
    one, other = await visitor.show(request_id, TOKEN), await visitor.show(request_id, TOKEN)
    assert (await visitor.press(one, "reject")).heading == "Rejected"
    late = await visitor.press(other, "approve")
    assert late.heading == "Decided already"
    assert gateway._book.paired() == ()


async def test_a_node_that_was_removed_again_is_said_to_be(
    gateway: Gateway, operator: ScriptedPeer, visitor: Visitor, device: DeviceIdentity
) -> None:
    request_id = await knock(gateway, device)
    approved = await visitor.press(await visitor.show(request_id, TOKEN), "approve")
    await operator.request("node.pair.remove", {"nodeId": device.device_id})
    assert (await visitor.press(approved, "next")).heading == "Removed"


async def test_a_password_opens_it_where_a_password_is_asked_for(device: DeviceIdentity) -> None:
    config = attrs.evolve(CONFIG, auth=AuthConfig(type="password", password="The Passw0rd of the page!"))
    async with open_memory_gateway(config) as gateway:
        request_id = await knock(gateway, device, password="The Passw0rd of the page!")
        visitor = Visitor(gateway)
        assert "Gateway password" in (await visitor.open(request_id)).text
        wrong = await visitor.show(request_id, "wrong")
        assert (wrong.status, "not the gateway's password" in wrong.text) == (401, True)
        shown = await visitor.show(request_id, "The Passw0rd of the page!")
        assert (await visitor.press(shown, "approve")).heading == "Approved"


async def test_an_api_key_opens_it_and_its_end_closes_it(
    gateway: Gateway, operator: ScriptedPeer, visitor: Visitor, device: DeviceIdentity
) -> None:
    key = await operator.request("tokens.create", {"name": "phone", "scopes": ["operator.admin"]})
    request_id = await knock(gateway, device)
    shown = await visitor.show(request_id, key["key"])
    assert "approve" in shown.buttons
    await operator.request("tokens.revoke", {"name": "phone"})
    late = await visitor.press(shown, "approve")
    assert (late.status, await waiting(operator)) == (403, [request_id])


async def test_authorization_is_as_good_as_the_field(
    gateway: Gateway, operator: ScriptedPeer, visitor: Visitor, device: DeviceIdentity
) -> None:
    """Whoever scripts it, with curl, needs no Origin either."""
    request_id = await knock(gateway, device)
    plain = {"Origin": "", "Sec-Fetch-Site": "", "Authorization": f"Bearer {TOKEN}"}
    shown = await visitor.show(request_id, **plain)
    assert (await visitor.press(shown, "approve", **plain)).heading == "Approved"


async def test_head_has_the_head_of_get(visitor: Visitor) -> None:
    async def head_of(method: str) -> dict[str, str]:
        return {name: value for name, value in (await visitor.open("r1", method)).headers.items() if name != "date"}

    assert await head_of("HEAD") == await head_of("GET")


async def test_the_page_goes_with_the_dashboard_and_with_http(gateway: Gateway) -> None:
    visitor = Visitor(gateway)
    auth = resolve_auth(CONFIG, None, {})
    assert (await visitor.open("r1")).status == 200
    for off in (
        attrs.evolve(CONFIG, control_ui=ControlUiConfig(enabled=False)),
        attrs.evolve(CONFIG, transports=TransportsConfig(http=HttpConfig(enabled=False))),
    ):
        gateway.apply(off, auth)
        assert (await visitor.open("r1")).status == 404
        assert (await visitor.show("r1", TOKEN)).status == 404
        gateway.apply(CONFIG, auth)
        assert (await visitor.open("r1")).status == 200


async def test_behind_a_prefix_the_form_goes_back_to_where_it_came_from(visitor: Visitor) -> None:
    """The proxy takes the prefix away; the form names its place relative to the page's."""
    assert 'action="approve"' in (await visitor.open("r1")).raw
    assert PATH.rsplit("/", 1)[1] == "approve"


async def test_another_role_needs_a_warning_and_the_rest_of_the_steps_are_the_same(
    gateway: Gateway, operator: ScriptedPeer, visitor: Visitor, device: DeviceIdentity
) -> None:
    async with connect_peer(gateway, device=device, scopes=["operator.read"]):
        pass
    shown = await visitor.show(await knock(gateway, device), TOKEN)
    assert "asks for another role" in shown.text


async def test_v60_trouble_with_the_store_decides_nothing(
    gateway: Gateway, visitor: Visitor, device: DeviceIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = await knock(gateway, device)
    shown = await visitor.show(request_id, TOKEN)

    async def full(*args: Any, **kwargs: Any) -> Any:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(gateway._book._store, "run", full)
        page: Page = await visitor.press(shown, "approve")
        assert (page.status, page.heading) == (503, "Nothing was done")
    monkeypatch.setattr(gateway._book._known, "fault", "damaged")
    page = await visitor.show(request_id, TOKEN)
    assert page.status == 503
    assert gateway._book._known._devices == {}


def test_a_start_does_not_pay_for_the_page() -> None:
    """The page is served from the start and loaded when it is opened."""
    program = (
        "import sys, trio\n"
        "from openclaw_gateway import GatewayConfig\n"
        "from openclaw_gateway.testing import open_memory_gateway\n"
        "async def main():\n"
        "    async with open_memory_gateway(GatewayConfig(port=0)) as gateway:\n"
        "        assert '/nodes/approve' in gateway._http.routes\n"
        "        print(sorted(name for name in sys.modules if name.startswith('openclaw_gateway.approvals')))\n"
        "trio.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['openclaw_gateway.approvals', 'openclaw_gateway.approvals.door']\n"
