"""Node selector terms and tolerations, with Kubernetes' semantics.

What cannot be read raises ``InputError``: the API server would not have taken it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from extender.core.errors import InputError

Labels: TypeAlias = Mapping[str, str]

#: Effects that keep a pod away; PreferNoSchedule only advises.
HARD_EFFECTS: Final = ("NoSchedule", "NoExecute")

_INT64: Final = re.compile(r"[-+]?[0-9]{1,30}")
_FIELD: Final = "metadata.name"


def any_term_matches(terms: object, labels: Labels, node_name: str) -> bool:
    """Whether one of ``nodeSelectorTerms`` holds for a node; no term, or an empty one, holds for none.

    Every term is read, also behind one that holds. Raises ``InputError``.
    """
    fields = {_FIELD: node_name}
    held = [_term_matches(_mapping(term), labels, fields) for term in _sequence(terms)]
    return any(held)


def tolerated(taint: Mapping[str, Any], tolerations: Iterable[object]) -> bool:
    """Whether one of the tolerations covers the taint; one that cannot be read covers nothing."""
    return any(isinstance(toleration, Mapping) and _covers(toleration, taint) for toleration in tolerations)


def _term_matches(term: Mapping[str, Any], labels: Labels, fields: Labels) -> bool:
    by_label, by_field = (_sequence(term.get(key)) for key in ("matchExpressions", "matchFields"))
    on_labels = [_matches(_mapping(requirement), labels) for requirement in by_label]
    on_fields = [_field_matches(_mapping(requirement), fields) for requirement in by_field]
    return bool(on_labels or on_fields) and all(on_labels) and all(on_fields)


def _field_matches(requirement: Mapping[str, Any], fields: Labels) -> bool:
    values = requirement.get("values")
    one_value = isinstance(values, list) and len(values) == 1
    if requirement.get("key") != _FIELD or requirement.get("operator") not in ("In", "NotIn") or not one_value:
        raise InputError(f"matchFields takes In or NotIn of {_FIELD} and one value")
    return _matches(requirement, fields)


def _matches(requirement: Mapping[str, Any], labels: Labels) -> bool:
    key, operator = requirement.get("key"), requirement.get("operator")
    values = _sequence(requirement.get("values"))
    judge = _OPERATORS.get(operator) if isinstance(operator, str) else None
    if not isinstance(key, str) or not key or judge is None or not all(isinstance(v, str) for v in values):
        raise InputError("a requirement needs a key, a known operator and values of text")
    return judge(labels.get(key), values)


def _in(label: str | None, values: list[str]) -> bool:
    if not values:
        raise InputError("In and NotIn need values")
    return label in values


def _not_in(label: str | None, values: list[str]) -> bool:
    # True for a node without the label: None is in no list of texts.
    return not _in(label, values)


def _exists(label: str | None, values: list[str]) -> bool:
    if values:
        raise InputError("Exists and DoesNotExist take no values")
    return label is not None


def _does_not_exist(label: str | None, values: list[str]) -> bool:
    return not _exists(label, values)


def _greater(label: str | None, values: list[str]) -> bool:
    bound, number = _bound(values), _int64(label)
    return number is not None and number > bound


def _less(label: str | None, values: list[str]) -> bool:
    bound, number = _bound(values), _int64(label)
    return number is not None and number < bound


_OPERATORS: Final[dict[str, Callable[[str | None, list[str]], bool]]] = {
    "In": _in,
    "NotIn": _not_in,
    "Exists": _exists,
    "DoesNotExist": _does_not_exist,
    "Gt": _greater,
    "Lt": _less,
}


def _bound(values: list[str]) -> int:
    bound = _int64(values[0]) if len(values) == 1 else None
    if bound is None:
        raise InputError("Gt and Lt need one integer")
    return bound


def _int64(text: object) -> int | None:
    """What Go's ``ParseInt`` makes of a label; None where it fails."""
    if not isinstance(text, str) or not _INT64.fullmatch(text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def _covers(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    key, operator, value, effect = (toleration.get(k) or "" for k in ("key", "operator", "value", "effect"))
    if effect not in ("", taint.get("effect")) or key not in ("", taint.get("key")):
        return False
    if operator in ("", "Equal"):
        return bool(value == (taint.get("value") or ""))
    # Lt and Gt compare numbers, behind a feature gate; whoever relies on them must not be surprised here.
    return bool(operator == "Exists")


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError("an object is missing")
    return value


def _sequence(value: object) -> list[Any]:
    """A list; null is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError("a list is missing")
    return value
