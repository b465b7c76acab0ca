"""A person's browser at the approval page, as far as the gateway can tell: what the tests of the page share."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import pytest

from openclaw_gateway import Gateway
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.errors import CallFailed
from tests.nodes.scripted import node_peer
from tests.server.test_http import dial

FAR = "192.0.2.7"
PATH = "/nodes/approve"
_BUTTON = re.compile(
    r'name="request" value="([^"]*)"><input type="hidden" name="ticket" value="([^"]*)"><button[^>]* value="(\w+)">'
)


@attrs.frozen
class Page:
    status: int
    headers: dict[str, str]
    raw: str

    @property
    def heading(self) -> str:
        return self._plain(self.raw.split("<h1>")[1].split("</h1>")[0])

    @property
    def text(self) -> str:
        """What a person reads, in one line."""
        return self._plain(self.raw.split("<main>")[1].split("</main>")[0])

    @property
    def buttons(self) -> dict[str, dict[str, str]]:
        """The fields that each button would send, by its step."""
        found = _BUTTON.findall(self.raw)
        return {step: {"step": step, "request": request, "ticket": ticket} for request, ticket, step in found}

    @staticmethod
    def _plain(marked: str) -> str:
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", marked.replace("<wbr>", ""))).split())


@attrs.frozen
class Visitor:
    """``headers`` with every request, besides those that a browser adds by itself. ``host``: of the address bar."""

    gateway: Gateway
    address: str = "127.0.0.1"
    host: str = "127.0.0.1:18789"
    scheme: str = "http"
    headers: dict[str, str] = attrs.field(factory=dict)

    async def request(self, method: str, target: str, body: bytes = b"", **headers: str) -> Page:
        async with dial(self.gateway, self.address) as client:
            answer = await client.ask(method, target, body, **{"Host": self.host, **self.headers, **headers})
        return Page(answer.status, answer.headers, answer.body.decode())

    async def open(self, request_id: str, method: str = "GET") -> Page:
        return await self.request(method, f"{PATH}?request={quote(request_id)}")

    async def send(self, fields: dict[str, str], **headers: str) -> Page:
        browser = {
            "Origin": f"{self.scheme}://{self.host}", "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/x-www-form-urlencoded",
        }  # fmt: skip
        sent = {name: value for name, value in {**browser, **headers}.items() if value}
        return await self.request("POST", PATH, urlencode(fields).encode(), **sent)

    async def show(self, request_id: str, secret: str = "", **headers: str) -> Page:
        return await self.send({"step": "show", "request": request_id, "secret": secret}, **headers)

    async def press(self, page: Page, step: str, **headers: str) -> Page:
        return await self.send(page.buttons[step], **headers)


async def knock(gateway: Gateway, device: DeviceIdentity, **who: Any) -> str:
    """A node of that device asks from far away to be let in: the id of its request."""
    with pytest.raises(CallFailed) as refused:
        async with node_peer(gateway, device, address=FAR, **who):
            pass
    assert refused.value.details is not None
    assert refused.value.details["code"] == "PAIRING_REQUIRED"
    return str(refused.value.details["requestId"])
