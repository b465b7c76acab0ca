"""WhatsApp: the Cloud API. Messages come by webhook, answers go out through the Graph API.

Owns the webhook's verification and signature, the shape of its notifications, and what an error code means for a
message. It must not know the sender gate or agents. Source: developers.facebook.com/docs/whatsapp/cloud-api (webhooks,
messages, error codes; a text has at most 4096 characters).

Theory of operation. Meta verifies a webhook once with ``hub.verify_token`` and then signs every notification with the
app secret (``X-Hub-Signature-256``, HMAC-SHA256 over the raw body). The body has to be read before its signature can be
checked, so a request without a well-formed signature ends before that (V47). A notification that is not answered with
200 comes again. A free text may be sent for 24 hours after a person's last message; after that Meta takes only approved
templates, and those are refused here in words: nobody has written one for an agent's answer.

Invariants: nothing is parsed before its signature is right; a notification for another phone number of the same app is
not ours; tokens and secrets are in no error, state or log.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio

from openclaw_gateway.channels.adapter import (
    AdapterFailed,
    Incoming,
    Outgoing,
    Port,
    WebhookReply,
    WebhookRequest,
)
from openclaw_gateway.channels.service import Answer, Service, ServiceUnreachable, base_url, open_service, secret
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.secrets import compare
from openclaw_gateway.protocol.wholetext import decode_whole
from openclaw_gateway.queues import QueueFull, RetryLater, Undeliverable
from openclaw_gateway.store import StoreError

__all__ = ["WhatsAppAdapter", "open_adapter", "read_notification"]

LIMIT: Final = 4096
CHECK_SECONDS: Final = 900.0  # between looks whether the token is still good
VERSION: Final = "v23.0"
_SIGNATURE: Final = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{5,20}", re.ASCII)
_OUTSIDE_WINDOW: Final = frozenset({131047})
_RATE_LIMITED: Final = frozenset({4, 80007, 130429, 131048, 131056, 133016})
_NEVER: Final = frozenset({100, 131008, 131009, 131021, 131026, 131030, 131045, 131049, 131050, 131051, 131052, 368})
_WRONG_TOKEN: Final = frozenset({0, 10, 190, 200})
_TEMPORARY_WAIT_MS: Final = 60_000
_MEDIA: Final = {
    "image": "photo", "video": "video", "audio": "audio", "voice": "voice message", "document": "file",
    "sticker": "sticker", "location": "location", "contacts": "contact", "order": "order",
}  # fmt: skip

log = get_logger("channels")


def open_adapter(account: str, settings: Mapping[str, Any]) -> WhatsAppAdapter:
    """An account's adapter from its settings (``accessToken``, ``phoneNumberId``, ``appSecret``, ``verifyToken``,
    ``apiRoot``, ``apiVersion``). Raises `AdapterFailed`.
    """
    first = account == "default"
    token = secret(settings, "accessToken", "whatsapp", env="WHATSAPP_ACCESS_TOKEN" if first else None)
    app_secret = secret(settings, "appSecret", "whatsapp", env="WHATSAPP_APP_SECRET" if first else None)
    verify = secret(settings, "verifyToken", "whatsapp", env="WHATSAPP_VERIFY_TOKEN" if first else None)
    if not token.isascii() or not token.isprintable() or " " in token:
        fix = "openclaw config set channels.whatsapp.accessToken '${WHATSAPP_ACCESS_TOKEN}'"
        raise AdapterFailed("misconfigured", "channels.whatsapp.accessToken is no access token", fix)
    if len(verify) < 16:
        fix = "openclaw config set channels.whatsapp.verifyToken '${WHATSAPP_VERIFY_TOKEN}'"
        raise AdapterFailed("misconfigured", "channels.whatsapp.verifyToken needs 16 or more characters", fix)
    number = str(settings.get("phoneNumberId") or "")
    if _NUMBER.fullmatch(number) is None:
        why = "channels.whatsapp.phoneNumberId is not set to the number's id (digits, from the app's WhatsApp page)"
        raise AdapterFailed("misconfigured", why, "openclaw config set channels.whatsapp.phoneNumberId 123456789012345")
    version = settings.get("apiVersion", VERSION)
    if not isinstance(version, str) or re.fullmatch(r"v[0-9]{1,3}\.[0-9]", version, re.ASCII) is None:
        fix = f"openclaw config set channels.whatsapp.apiVersion {VERSION}"
        raise AdapterFailed("misconfigured", "channels.whatsapp.apiVersion is no version of the Graph API", fix)
    root = base_url(settings, "apiRoot", "https://graph.facebook.com", "whatsapp")
    return WhatsAppAdapter(f"{root}/{version}/", number, token, app_secret=app_secret, verify_token=verify)


class WhatsAppAdapter:
    limit = LIMIT

    def __init__(self, base: str, number: str, token: str, *, app_secret: str, verify_token: str) -> None:
        self._base = base
        self._number = number
        self._headers = {"authorization": f"Bearer {token}"}
        self._app_secret = app_secret.encode()
        self._verify_token = verify_token.encode()
        self._service: Service | None = None
        self._not_before = 0.0

    async def run(self, port: Port) -> None:
        async with open_service(self._base) as service:
            self._service = service
            try:
                while True:
                    port.connected(await self._look(service))
                    await trio.sleep(CHECK_SECONDS)
            finally:
                self._service = None

    async def _look(self, service: Service) -> dict[str, Any]:
        """Who we are. Raises `AdapterFailed`."""
        path = f"{self._number}?fields=display_phone_number,verified_name"
        try:
            answer = await service.call("GET", path, headers=self._headers)
        except ServiceUnreachable as exc:
            raise AdapterFailed("reconnecting", f"WhatsApp: {exc}") from exc
        body = answer.json
        if answer.status == 200 and isinstance(body, dict) and body.get("id") == self._number:
            shown = {"name": body.get("verified_name"), "phone": body.get("display_phone_number")}
            return {"id": self._number, "transport": "webhook", **{k: str(v)[:64] for k, v in shown.items() if v}}
        code, told = _error(answer)
        if answer.status == 401 or code in _WRONG_TOKEN:
            fix = "openclaw config set channels.whatsapp.accessToken '${WHATSAPP_ACCESS_TOKEN}'"
            raise AdapterFailed("auth-failed", f"WhatsApp does not accept the access token: {told}", fix)
        if answer.status in {400, 404}:
            fix = "openclaw config set channels.whatsapp.phoneNumberId 123456789012345"
            raise AdapterFailed("auth-failed", f"WhatsApp does not know this phone number id: {told}", fix)
        why = f"WhatsApp answered {answer.status}: {told}"
        raise AdapterFailed("reconnecting", why, after_ms=answer.retry_after_ms)

    # --- out

    async def send(self, message: Outgoing) -> None:
        service = self._service
        if service is None:
            raise RetryLater("not connected", counts=False)
        wait = self._not_before - trio.current_time()
        if wait > 0:
            raise RetryLater("WhatsApp asked to wait", int(wait * 1000) + 1, counts=False)
        body: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": message.conversation,
            "type": "text",
            "text": {"preview_url": False, "body": message.text},
        }
        if message.reply_to:
            body["context"] = {"message_id": message.reply_to}
        try:
            answer = await service.call("POST", f"{self._number}/messages", json=body, headers=self._headers)
        except ServiceUnreachable as exc:
            raise RetryLater(f"WhatsApp: {exc}") from exc
        accepted = answer.json
        if answer.status == 200 and isinstance(accepted, dict) and accepted.get("messages"):
            return
        raise self._send_fault(answer)

    def _send_fault(self, answer: Answer) -> RetryLater | Undeliverable:
        code, told = _error(answer)
        if code in _OUTSIDE_WINDOW:
            return Undeliverable(
                "WhatsApp: more than 24 hours since this person's last message; after that WhatsApp takes only "
                "approved templates, which this gateway does not send. They have to write first"
            )
        if answer.status == 429 or code in _RATE_LIMITED:
            after = answer.retry_after_ms or _TEMPORARY_WAIT_MS
            self._not_before = trio.current_time() + after / 1000
            return RetryLater("WhatsApp asked to wait", after, counts=False)
        if code in _NEVER:
            return Undeliverable(f"WhatsApp: {told}")
        return RetryLater(f"WhatsApp: {told}")

    async def conversation_with(self, sender_id: str) -> str:
        await trio.lowlevel.checkpoint()
        return sender_id.removeprefix("+")

    # --- in

    async def webhook(self, port: Port, request: WebhookRequest) -> WebhookReply:
        if request.method == "GET":
            await trio.lowlevel.checkpoint()
            return self._verify(request.query)
        if request.method != "POST":
            return WebhookReply(405, b"Method Not Allowed")
        given = _SIGNATURE.fullmatch(request.headers.get("x-hub-signature-256", ""))
        if given is None:
            return WebhookReply(401, b"Unauthorized")
        body = await request.read()
        given_digest = bytes.fromhex(given[1])
        if not hmac.compare_digest(given_digest, hmac.digest(self._app_secret, body, "sha256")):
            return WebhookReply(401, b"Unauthorized")
        try:
            notification = decode_whole(msgspec.json.decode, body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return WebhookReply(400, b"Bad Request")
        port.activity()
        for code, title in _failures(notification, self._number):
            log.warning("WhatsApp could not deliver a message", channel="whatsapp", code=code, reason=title)
        for message in read_notification(notification, self._number):
            try:
                await port.incoming(message)
            except (QueueFull, StoreError):
                return WebhookReply(503, b"Try again")  # the whole notification comes again; what was taken is known
        return WebhookReply(200, b"ok")

    def _verify(self, query: Mapping[str, str]) -> WebhookReply:
        """Meta asks once whether this webhook is wanted, and wants its challenge back."""
        challenge = query.get("hub.challenge", "")
        right = compare(query.get("hub.verify_token", ""), self._verify_token.decode())
        if not right or query.get("hub.mode") != "subscribe" or re.fullmatch(r"[\w.-]{1,256}", challenge, re.A) is None:
            return WebhookReply(403, b"Forbidden")
        return WebhookReply(200, challenge.encode())

    async def probe(self) -> Mapping[str, Any]:
        async with self._at_hand() as service:
            return await self._look(service)

    @asynccontextmanager
    async def _at_hand(self) -> AsyncIterator[Service]:
        if self._service is not None:
            yield self._service
            return
        async with open_service(self._base) as service:
            yield service

    async def logout(self) -> bool:
        await trio.lowlevel.checkpoint()
        return False  # the webhook belongs to the app, and is taken back on its page


def read_notification(notification: Any, number: str) -> Iterator[Incoming]:
    """The messages of a notification to the phone number id ``number``; statuses and everything else are left out."""
    for value in _values(notification):
        metadata = value.get("metadata")
        if not isinstance(metadata, dict) or metadata.get("phone_number_id") != number:
            continue
        names = {
            contact.get("wa_id"): contact.get("profile", {}).get("name")
            for contact in _dicts(value.get("contacts"))
            if isinstance(contact.get("profile", {}), dict)
        }
        for message in _dicts(value.get("messages")):
            read = _read(message, names)
            if read is not None:
                yield read


def _failures(notification: Any, number: str) -> Iterator[tuple[int, str]]:
    """What statuses say of messages that WhatsApp took and then could not deliver: error code and title."""
    for value in _values(notification):
        metadata = value.get("metadata")
        if isinstance(metadata, dict) and metadata.get("phone_number_id") == number:
            for status in _dicts(value.get("statuses")):
                for error in _dicts(status.get("errors")):
                    code, title = error.get("code"), error.get("title")
                    if isinstance(code, int):
                        yield code, title[:200] if isinstance(title, str) else ""


def _values(notification: Any) -> Iterator[dict[str, Any]]:
    if isinstance(notification, dict) and notification.get("object") == "whatsapp_business_account":
        for entry in _dicts(notification.get("entry")):
            for change in _dicts(entry.get("changes")):
                value = change.get("value")
                if change.get("field") == "messages" and isinstance(value, dict):
                    yield value


def _read(message: Mapping[str, Any], names: Mapping[Any, Any]) -> Incoming | None:
    id_, sender, at, kind = (message.get(key) for key in ("id", "from", "timestamp", "type"))
    if not isinstance(id_, str) or not 0 < len(id_) <= 200 or not isinstance(sender, str):
        return None
    if not isinstance(at, str) or re.fullmatch(r"[0-9]{1,12}", at, re.A) is None or not isinstance(kind, str):
        return None
    content = message.get(kind)
    content = content if isinstance(content, dict) else {}
    said = {
        "text": content.get("body"),
        "button": content.get("text"),
        "interactive": _choice(content),
    }.get(kind, content.get("caption"))
    if kind not in {"text", "button", "interactive"} and kind not in _MEDIA:
        return None  # reactions, system notes, what this version does not know
    name = names.get(sender)
    media = _MEDIA.get(kind)
    file = content.get("filename")
    line = f"[{media}: {file[:200]}]" if media and isinstance(file, str) else f"[{media}]"
    return Incoming(
        key=id_,
        message_id=id_,
        conversation=sender,
        context="group" if "group_id" in message else "dm",
        sender_id=sender,
        sender_name=name if isinstance(name, str) else "",
        text=said if isinstance(said, str) else "",
        sent_at_ms=int(at) * 1000,
        attachments=(line,) if media else (),
    )


def _choice(content: Mapping[str, Any]) -> Any:
    for key in ("button_reply", "list_reply"):
        chosen = content.get(key)
        if isinstance(chosen, dict):
            return chosen.get("title")
    return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _error(answer: Answer) -> tuple[int | None, str]:
    body = answer.json
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return None, f"status {answer.status}"
    code, message = error.get("code"), error.get("message")
    told = message[:200] if isinstance(message, str) else f"status {answer.status}"
    return (code if isinstance(code, int) else None), told
