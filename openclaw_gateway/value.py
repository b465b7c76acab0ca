"""Equality, hash and repr for records, without generating code for each of them.

attrs writes these methods as source text and compiles it, class by class: for the hundred or so records of a gateway
that is 40 ms of every start. A record that says ``@attrs.frozen(eq=False, repr=False)`` and inherits `Value` has the
same behaviour, looked up in attrs' own field list when it is asked for, and costs a start nothing.

Invariants: two values are equal when they are of the same class and their fields are; fields declared ``repr=False``
(secrets) never show; only frozen records inherit this, so that a hash cannot change under a dictionary.
"""

from __future__ import annotations

from typing import Any, cast

import attrs

__all__ = ["Value"]


class Value:
    __slots__ = ()

    def _compared(self) -> tuple[Any, ...]:
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(self)))
        return tuple(getattr(self, field.name) for field in fields if field.eq)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self is other or self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((type(self), self._compared()))

    def __repr__(self) -> str:
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(self)))
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields if field.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"
