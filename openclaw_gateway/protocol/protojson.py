"""A JSON object as a message of proto/, and back: the same value, whatever is in it.

Owns the mapping rules of docs/reference/protobuf.md. It must not know frames, nor which message belongs to which
method.

A message is a JSON object; a field is the member of its ``json_name``. A value goes into its field only where it comes
back exactly as it was; everything else (a member without a field, null, a number out of range or of the other kind,
NaN, an empty array, base64 that is not canonical) goes into ``more``, a JSON object in bytes. So whatever can be JSON
can be a message, and a gateway and a client that know different members understand each other.

Invariants: `read(fill(value)) == value`, ints staying ints and floats floats; what `fill` raises is what msgspec raises
for the same value; `read` raises `NotJson` alone, and with ``strict`` leaves nothing out that was sent.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

__all__ = ["NotJson", "decode_raw", "fill", "plain", "read"]

MORE: Final = "more"
_JSON_SUFFIX: Final = "_json"
_LEAST_INT: Final = -(2**63)
_MOST_INT: Final = 2**63 - 1

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Put = Callable[[Message, Any], bool]  # into a message; False where the value does not fit its field
Get = Callable[[Any, bool], Any]  # out of a field's value; the flag is ``strict``


class NotJson(ValueError):
    """A message that no JSON value stands for; the text says which field is at fault."""


def decode_raw(data: bytes) -> msgspec.Raw:
    """JSON text that is looked at later. Raises `NotJson` for anything else, text that is not UTF-8 included."""
    try:
        if not data.isascii():
            data.decode()
        return _decode_raw(data)
    except DECODE_ERRORS as exc:
        raise NotJson("not JSON") from exc


def fill(message: Message, value: Mapping[Any, Any]) -> None:
    """Put a JSON object into an empty message.

    Raises `TypeError` or `ValueError` (`UnicodeEncodeError` included) where ``value`` cannot be JSON.
    """
    fields = _shape(message.DESCRIPTOR).by_member
    rest: dict[Any, Any] | None = None
    for name, item in value.items():
        put = fields.get(name)
        if put is None or not put(message, plain(item) if type(item) is msgspec.Raw else item):
            if rest is None:
                rest = {}
            rest[name] = item
    if rest is not None:
        message.more = _encode(rest)  # type: ignore[attr-defined]  # every mapped message has the field


def read(message: Message, *, strict: bool) -> dict[str, Any]:
    """The JSON object that a message stands for.

    ``strict``: what is nested stays `msgspec.Raw` that was found to be JSON, and fields that this schema does not have
    are a fault; without it everything is decoded and such fields are left out. Raises `NotJson`.
    """
    shape = _shape(message.DESCRIPTOR)
    if strict and len(UnknownFieldSet(message)):
        raise NotJson(f"{shape.name} has a field that is not known here")
    out: dict[str, Any] = {}
    more = None
    for descriptor, value in message.ListFields():
        name, get = shape.by_number[descriptor.number]
        if get is None:
            more = value
            continue
        try:
            out[name] = get(value, strict)
        except NotJson as exc:
            raise NotJson(f"{shape.name}.{descriptor.name}: {exc}") from exc
    if more is not None:
        _add_more(shape.name, out, more, strict)
    return out


def _add_more(name: str, out: dict[str, Any], more: bytes, strict: bool) -> None:
    try:
        if not more.isascii():
            more.decode()
        members = _decode_raw_object(more) if strict else _decode_object(more)
    except DECODE_ERRORS as exc:
        raise NotJson(f"{name}.more: not a JSON object") from exc
    if not members.keys().isdisjoint(out):
        raise NotJson(f"{name}.more: repeats a member that has its own field")
    out.update(members)


def plain(raw: msgspec.Raw) -> Any:
    """The value of JSON text, or the text itself where it is nested deeper than can be looked at here."""
    try:
        return _decode(raw)
    except DECODE_ERRORS:
        return raw


# --- one message type


class _Shape:
    """What the fields of one message type mean, worked out once."""

    __slots__ = ("by_member", "by_number", "name")

    def __init__(self, descriptor: Any) -> None:
        self.name: str = descriptor.name
        self.by_member: dict[Any, Put] = {}
        self.by_number: dict[int, tuple[str, Get | None]] = {}
        for field in descriptor.fields:
            if field.name == MORE:
                self.by_number[field.number] = (MORE, None)
                continue
            put, get = _kind(field)
            self.by_member[field.json_name] = put
            self.by_number[field.number] = (field.json_name, get)


@cache  # as many as proto/ has messages
def _shape(descriptor: Any) -> _Shape:
    return _Shape(descriptor)


def _kind(field: FieldDescriptor) -> tuple[Put, Get]:
    name = field.name
    if field.is_repeated:
        return (_put_messages(name), _get_messages) if field.message_type else (_put_texts(name), _get_texts)
    if field.message_type is not None:
        return _put_message(name), _get_message
    if field.type == FieldDescriptor.TYPE_BYTES:
        return (_put_json(name), _get_json) if name.endswith(_JSON_SUFFIX) else (_put_base64(name), _get_base64)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _put_double(name), _get_double
    if field.type == FieldDescriptor.TYPE_INT64:
        return _put_int(name), _get_same
    return _put_same(name, {FieldDescriptor.TYPE_STRING: str, FieldDescriptor.TYPE_BOOL: bool}[field.type]), _get_same


# Putting: only values of exactly these types, for a subclass may be encoded in its own way.


def _put_same(name: str, kind: type) -> Put:
    def put(message: Message, value: Any) -> bool:
        if type(value) is not kind:
            return False
        setattr(message, name, value)
        return True

    return put


def _put_int(name: str) -> Put:
    def put(message: Message, value: Any) -> bool:
        if type(value) is not int or not _LEAST_INT <= value <= _MOST_INT:
            return False
        setattr(message, name, value)
        return True

    return put


def _put_double(name: str) -> Put:
    def put(message: Message, value: Any) -> bool:
        if type(value) is not float or value - value != 0:  # NaN and the infinities are null in JSON
            return False
        setattr(message, name, value)
        return True

    return put


def _put_json(name: str) -> Put:
    def put(message: Message, value: Any) -> bool:
        setattr(message, name, _encode(value))
        return True

    return put


def _put_base64(name: str) -> Put:
    def put(message: Message, value: Any) -> bool:
        if type(value) is not str:
            return False
        try:
            data = binascii.a2b_base64(value, strict_mode=True)
        except ValueError:
            return False
        if binascii.b2a_base64(data, newline=False).decode() != value:
            return False
        setattr(message, name, data)
        return True

    return put


def _put_texts(name: str) -> Put:
    def put(message: Message, value: Any) -> bool:
        if type(value) not in {list, tuple} or not value or not all(type(item) is str for item in value):
            return False
        getattr(message, name).extend(value)
        return True

    return put


def _put_message(name: str) -> Put:
    def put(message: Message, value: Any) -> bool:
        if type(value) is not dict:
            return False
        inner = getattr(message, name)
        inner.SetInParent()
        fill(inner, value)
        return True

    return put


def _put_messages(name: str) -> Put:
    def put(message: Message, value: Any) -> bool:
        if type(value) not in {list, tuple} or not value or not all(type(item) is dict for item in value):
            return False
        add = getattr(message, name).add
        for item in value:
            fill(add(), item)
        return True

    return put


# Getting.


def _get_same(value: Any, strict: bool) -> Any:
    return value


def _get_double(value: Any, strict: bool) -> Any:
    if value - value != 0:
        raise NotJson("NaN and infinities are not JSON")
    return value


def _get_json(value: Any, strict: bool) -> Any:
    if strict:
        return decode_raw(value)
    try:
        return _decode(value)
    except DECODE_ERRORS as exc:
        raise NotJson("not JSON") from exc


def _get_base64(value: Any, strict: bool) -> Any:
    return binascii.b2a_base64(value, newline=False).decode()


def _get_texts(value: Any, strict: bool) -> Any:
    return list(value)


def _get_message(value: Any, strict: bool) -> Any:
    return read(value, strict=strict)


def _get_messages(value: Any, strict: bool) -> Any:
    return [read(item, strict=strict) for item in value]
