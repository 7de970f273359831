"""The shapes that a field of a Kubernetes object can have.

A shape is a function of a value and the field's name; it raises ``InputError`` which names the field and its
value. A field that is null is absent, as Go's JSON makes it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeAlias

from extender.core.errors import InputError, InvalidQuantity
from extender.core.requests.quantity import parse_quantity
from extender.core.requests.quote import plain, quote

Shape: TypeAlias = Callable[[Any, str], None]

# Looser than the API server's rule, which differs by kind: enough for one line and one segment of a URL.
_NAME: Final = re.compile(r"[^\s/%\x00-\x20\x7f]{1,253}")


def text(value: Any, field: str) -> None:
    if type(value) is not str:
        _fail(value, field, "text")


def name(value: Any, field: str) -> None:
    text(value, field)
    if not (_NAME.fullmatch(value) and value.isprintable()):
        _fail(value, field, "a name")


def integer(value: Any, field: str) -> None:
    if type(value) is not int:
        _fail(value, field, "an integer")


def flag(value: Any, field: str) -> None:
    if type(value) is not bool:
        _fail(value, field, "true or false")


def quantity(value: Any, field: str) -> None:
    """A quantity of something that a pod can ask for or a node can have: not below 0."""
    try:
        negative = parse_quantity(value) < 0
    except InvalidQuantity:
        _fail(value, field, "a quantity")
    if negative:
        _fail(value, field, "at least 0")


def each(shape: Shape) -> Shape:
    """A list in which every element has this shape."""

    def check(value: Any, field: str) -> None:
        if type(value) is not list:
            _fail(value, field, "a list")
        for index, element in enumerate(value):
            shape(element, f"{field}[{index}]")

    return check


def by_key(shape: Shape) -> Shape:
    """An object with any keys, in which every value has this shape."""

    def check(value: Any, field: str) -> None:
        if type(value) is not dict:
            _fail(value, field, "an object")
        for key, element in value.items():
            shape(element, f"{field}[{plain(key)}]")

    return check


def fields(shapes: Mapping[str, Shape], required: tuple[str, ...] = ()) -> Shape:
    """An object whose fields have these shapes where they occur; others are not looked at."""

    def check(value: Any, field: str) -> None:
        if type(value) is not dict:
            _fail(value, field, "an object")
        prefix = f"{field}." if field else ""
        for key, shape in shapes.items():
            if (part := value.get(key)) is not None:
                shape(part, prefix + key)
            elif key in required:
                raise InputError(f"{prefix}{key} is missing")

    return check


def texts(value: Any, field: str) -> None:
    """An object in which every value is text."""
    # A short cut for what is nearly always so: labels and annotations are half of all values.
    if type(value) is not dict or any(type(element) is not str for element in value.values()):
        by_key(text)(value, field)


an_object: Final = fields({})
quantities: Final = by_key(quantity)


def _fail(value: Any, field: str, wanted: str) -> NoReturn:
    raise InputError(f"{field} is {quote(value)} but must be {wanted}")
