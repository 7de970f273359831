"""The referee's kubelet resolves variables as a kubelet does."""

from typing import Any

import pytest

from tests.builders import make_pod
from tests.controlplane.environment import environments, field


def env(*entries: dict[str, Any], **annotations: str) -> dict[str, str]:
    pod = make_pod("p", "team").spec(containers=[{"name": "main", "env": list(entries)}], nodeName="n")
    for key, value in annotations.items():
        pod.annotation(f"example.com/{key}", value)
    return environments(pod.build())["main"]


def of(path: str) -> dict[str, Any]:
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


def test_an_annotation_with_a_slash_and_a_dot_in_its_key() -> None:
    assert env(of("metadata.annotations['example.com/limit.0']"), **{"limit.0": "a,b"}) == {"X": "a,b"}


def test_an_annotation_that_does_not_exist_is_empty_and_no_error() -> None:
    assert env(of("metadata.annotations['example.com/none']")) == {"X": ""}


def test_plain_fields() -> None:
    assert env(of("metadata.namespace")) == {"X": "team"}
    assert env(of("spec.nodeName")) == {"X": "n"}
    assert env(of("metadata.labels['app']")) == {"X": "p"}


def test_what_is_not_played_is_an_error_and_not_an_empty_value() -> None:
    with pytest.raises(KeyError):
        field(make_pod().build(), "status.podIP")
    with pytest.raises(KeyError):
        env({"name": "X", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}})


def test_references_reach_back_only_and_the_later_of_two_counts() -> None:
    entries = [
        {"name": "EARLY", "value": "$(LATE)"},
        {"name": "LATE", "value": "1"},
        {"name": "LATE", "value": "$(LATE)2"},
        {"name": "ESCAPED", "value": "$$(LATE)"},
    ]
    assert env(*entries) == {"EARLY": "$(LATE)", "LATE": "12", "ESCAPED": "$(LATE)"}


def test_init_containers_have_their_own() -> None:
    pod = make_pod().spec(initContainers=[{"name": "first", "env": [{"name": "A", "value": "1"}]}])
    assert environments(pod.build()) == {"first": {"A": "1"}, "main": {}}
