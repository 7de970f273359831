"""YAML as kubectl writes and reads it: text → documents of plain JSON values.

The parser's events are read directly. PyYAML's loader takes some times longer, overflows the C stack on deep
nesting, expands merge keys without limit and makes dates of text. Here keys are always text, every alias is a
copy of its own, and nesting and aliases have limits.
"""

from collections.abc import Iterator
from typing import Any, Final, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from yaml.reader import ReaderError

from extender.core.errors import InputError
from extender.core.requests.quote import plain
from extender.yaml_scalar import resolve

_PARSER: Final[type[Any]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEEPEST: Final = 100
MOST_ALIASED_VALUES: Final = 100_000

_TAG: Final = "tag:yaml.org,2002:"
_TEXT_TAGS: Final = ("!", _TAG + "str")
_OTHER_TAGS: Final = tuple(_TAG + name for name in ("null", "bool", "int", "float", "map", "seq"))


def yaml_documents(text: str) -> Iterator[Any]:
    """Each document in turn; None for an empty one. Raises ``InputError`` with line and column."""
    try:
        yield from _Reader(text).documents()
    except UnicodeEncodeError as error:
        raise InputError(f"{line_and_column(text, error.start)}: half of a surrogate pair") from None
    except ReaderError as error:
        raise InputError(f"{line_and_column(text, error.position)}: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        raise InputError(f"{_place(error.problem_mark or error.context_mark)}: {error.problem}") from None


def line_and_column(text: str, position: int) -> str:
    """Where the character at ``position`` stands, both counted from 1."""
    return f"line {text.count(chr(10), 0, position) + 1}, column {position - text.rfind(chr(10), 0, position)}"


class _Reader:
    """One pass over the events of one text."""

    def __init__(self, text: str) -> None:
        self._next = _PARSER(text).get_event
        #: Anchor → finished value. Inside its own value an anchor is unknown, so there are no cycles.
        self._anchors: dict[str, Any] = {}
        self._aliased_left = MOST_ALIASED_VALUES

    def documents(self) -> Iterator[Any]:
        while type(event := self._next()) is not StreamEndEvent:
            if type(event) is DocumentStartEvent:
                self._anchors.clear()
                yield self._value(self._next(), 0)
            else:
                assert type(event) in (StreamStartEvent, DocumentEndEvent)

    def _value(self, event: Event, depth: int) -> Any:
        if type(event) is AliasEvent:
            return self._alias(event, depth)
        if depth > DEEPEST:
            _fail(event, f"nested more than {DEEPEST} levels deep")
        _refuse_unknown_tag(event)
        value: Any
        if type(event) is ScalarEvent:
            value = _scalar(event)
        elif type(event) is MappingStartEvent:
            value = self._mapping(depth)
        else:
            value = self._sequence(depth)
        if event.anchor is not None:  # type: ignore[attr-defined]  # every node event has one
            self._anchors[event.anchor] = value  # type: ignore[attr-defined]
        return value

    def _sequence(self, depth: int) -> list[Any]:
        values = []
        while type(event := self._next()) is not SequenceEndEvent:
            values.append(self._value(event, depth + 1))
        return values

    def _mapping(self, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while type(key := self._next()) is not MappingEndEvent:
            if type(key) is not ScalarEvent:
                _fail(key, "a key must be text")
            value = self._value(self._next(), depth + 1)
            if key.value == "<<" and key.implicit[0]:
                _merge(merged, value, key)
            elif key.value in mapping:
                _fail(key, f"the key {plain(key.value)} occurs twice")
            else:
                mapping[key.value] = value
        return {**merged, **mapping} if merged else mapping

    def _alias(self, event: AliasEvent, depth: int) -> Any:
        if event.anchor not in self._anchors:
            _fail(event, f"unknown alias {plain(event.anchor)}")
        return self._copy(self._anchors[event.anchor], event, depth)

    def _copy(self, value: Any, event: AliasEvent, depth: int) -> Any:
        self._aliased_left -= 1
        if self._aliased_left < 0 or depth > DEEPEST:
            _fail(event, f"aliases expand to more than {MOST_ALIASED_VALUES} values or {DEEPEST} levels")
        if isinstance(value, dict):
            return {key: self._copy(part, event, depth + 1) for key, part in value.items()}
        if isinstance(value, list):
            return [self._copy(part, event, depth + 1) for part in value]
        return value


def _merge(merged: dict[str, Any], value: Any, key: ScalarEvent) -> None:
    """Take over what ``<<: *base`` names; of several mappings the first that has a key gives its value."""
    for source in value if isinstance(value, list) else [value]:
        if not isinstance(source, dict):
            _fail(key, "only mappings can be merged")
        for name, part in source.items():
            merged.setdefault(name, part)


def _refuse_unknown_tag(event: Any) -> None:
    if event.tag is not None and event.tag not in _TEXT_TAGS and event.tag not in _OTHER_TAGS:
        _fail(event, f"unknown tag {plain(event.tag)}")


def _scalar(event: ScalarEvent) -> Any:
    # implicit[0]: written without quotes.
    bare = event.implicit[0] if event.tag is None else event.tag in _OTHER_TAGS
    return resolve(event.value) if bare else event.value


def _fail(event: Event, problem: str) -> NoReturn:
    raise InputError(f"{_place(event.start_mark)}: {problem}")


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
