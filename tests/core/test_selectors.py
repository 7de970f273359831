"""Node selector terms and tolerations against Kubernetes' own semantics."""

from typing import Any

import pytest

from extender.core.errors import InputError
from extender.core.selectors import any_term_matches, tolerated

LABELS = {"zone": "a", "gpus": "8", "empty": "", "version": "v1"}


def term(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def field(operator: str, *values: str, key: str = "metadata.name") -> dict[str, Any]:
    return {"matchFields": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("key", "operator", "values", "holds"),
    [
        ("zone", "In", ("b", "a"), True),
        ("zone", "In", ("b",), False),
        ("absent", "In", ("a",), False),
        ("empty", "In", ("",), True),
        ("absent", "In", ("",), False),
        ("zone", "NotIn", ("a",), False),
        ("zone", "NotIn", ("b",), True),
        ("absent", "NotIn", ("a",), True),
        ("empty", "Exists", (), True),
        ("absent", "Exists", (), False),
        ("empty", "DoesNotExist", (), False),
        ("absent", "DoesNotExist", (), True),
        ("gpus", "Gt", ("7",), True),
        ("gpus", "Gt", ("8",), False),
        ("gpus", "Gt", ("-1",), True),
        ("gpus", "Lt", ("10",), True),
        ("gpus", "Lt", ("8",), False),
        ("absent", "Gt", ("0",), False),
        ("absent", "Lt", ("0",), False),
        ("version", "Gt", ("0",), False),
        ("version", "Lt", ("9",), False),
    ],
)
def test_operators(key: str, operator: str, values: tuple[str, ...], holds: bool) -> None:
    assert any_term_matches([term(key, operator, *values)], LABELS, "n1") is holds


def test_a_label_beyond_64_bits_is_no_number() -> None:
    assert not any_term_matches([term("gpus", "Gt", "1")], {"gpus": str(2**63)}, "n1")
    assert any_term_matches([term("gpus", "Gt", "1")], {"gpus": str(2**63 - 1)}, "n1")


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        (field("In", "n1"), True),
        (field("In", "n2"), False),
        (field("NotIn", "n1"), False),
        (field("NotIn", "n2"), True),
    ],
)
def test_fields(requirement: dict[str, Any], holds: bool) -> None:
    assert any_term_matches([requirement], LABELS, "n1") is holds


def test_terms_are_alternatives_and_what_is_in_a_term_holds_together() -> None:
    yes, no = term("zone", "Exists"), term("zone", "DoesNotExist")
    assert any_term_matches([no, yes], LABELS, "n1")
    both = {"matchExpressions": [*yes["matchExpressions"], *no["matchExpressions"]]}
    assert not any_term_matches([both], LABELS, "n1")
    assert any_term_matches([yes | field("In", "n1")], LABELS, "n1")
    assert not any_term_matches([yes | field("In", "n2")], LABELS, "n1")
    assert not any_term_matches([no | field("In", "n1")], LABELS, "n1")


@pytest.mark.parametrize("terms", [None, [], [{}], [{"matchExpressions": []}], [{"matchFields": None}]])
def test_no_term_and_the_empty_term_hold_for_no_node(terms: Any) -> None:
    assert any_term_matches(terms, LABELS, "n1") is False


@pytest.mark.parametrize(
    "broken",
    [
        "zone",
        {"matchExpressions": {}},
        {"matchExpressions": ["zone"]},
        {"matchExpressions": [{"key": "zone"}]},
        {"matchExpressions": [{"key": "", "operator": "Exists"}]},
        {"matchExpressions": [{"key": 5, "operator": "Exists"}]},
        {"matchExpressions": [{"key": "zone", "operator": ["In"], "values": ["a"]}]},
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": "a"}]},
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": [1]}]},
        term("zone", "in", "a"),
        term("zone", "In"),
        term("zone", "NotIn"),
        term("zone", "Exists", "a"),
        term("zone", "DoesNotExist", "a"),
        term("gpus", "Gt"),
        term("gpus", "Gt", "1", "2"),
        term("gpus", "Lt", "few"),
        term("absent", "Lt", "1_0"),
        field("Exists"),
        field("In", "n1", "n2"),
        field("In", "n1", key="metadata.uid"),
    ],
)
def test_what_cannot_be_read_is_refused_even_behind_a_term_that_holds(broken: Any) -> None:
    with pytest.raises(InputError):
        any_term_matches([term("zone", "Exists"), broken], LABELS, "n1")


TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"key": "nvidia.com/gpu", "value": "present"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Equal", "value": "absent"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Equal"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": ""}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"operator": "Exists"}, True),
        ({"key": "", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Gt", "value": "1"}, False),
        ({"key": "nvidia.com/gpu", "operator": "exists"}, False),
        ("nvidia.com/gpu", False),
        ({"key": ["nvidia.com/gpu"], "operator": "Exists"}, False),
    ],
)
def test_tolerations(toleration: Any, covers: bool) -> None:
    assert tolerated(TAINT, [toleration]) is covers


def test_a_taint_without_value_equals_a_toleration_without_value() -> None:
    assert tolerated({"key": "spot", "effect": "NoSchedule"}, [{"key": "spot"}])
    assert not tolerated({"key": "spot", "effect": "NoSchedule"}, [{"key": "spot", "value": "yes"}])


def test_one_toleration_is_enough_and_none_is_not() -> None:
    assert tolerated(TAINT, [{"key": "other"}, {"operator": "Exists"}])
    assert not tolerated(TAINT, [])
