"""JSON as kubectl and jq write it: one document, or several one after the other."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from extender.core.errors import InputError
from extender.yaml_reader import line_and_column

_START: Final = re.compile(r'\s*\{\s*["}]')
# Numbers are only skipped here: int() refuses thousands of digits.
_DECODER: Final = json.JSONDecoder(parse_int=float)
_BETWEEN: Final = re.compile(r"\s*(?:---\s*)?")


def looks_like_json(text: str) -> bool:
    """Whether ``text`` starts as a JSON object does. YAML like ``{kind: Pod}`` does not."""
    return _START.match(text) is not None


def json_documents(text: str) -> Iterator[Any]:
    """Each document in turn. Raises ``InputError`` with line and column."""
    try:
        yield orjson.loads(text)
    except orjson.JSONDecodeError:
        # Several documents, or a broken one: the slow way finds out where.
        yield from _one_by_one(text)


def _one_by_one(text: str) -> Iterator[Any]:
    start = 0
    while start < len(text):
        end = _end_of_document(text, start)
        # Read again by orjson: json lets pass what cannot be written again, such as half a surrogate pair.
        try:
            yield orjson.loads(text[start:end])
        except orjson.JSONDecodeError as error:
            raise InputError(f"{line_and_column(text, start + error.pos)}: {error.msg}") from None
        start = _start_of_next(text, end)


def _start_of_next(text: str, end: int) -> int:
    between = _BETWEEN.match(text, end)
    assert between is not None  # it matches nothing, too
    return between.end()


def _end_of_document(text: str, start: int) -> int:
    try:
        return _DECODER.raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{line_and_column(text, start)}: nested too deep") from None
