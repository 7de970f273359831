"""YAML as kubectl reads and writes it, and what must not take the reader down."""

import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extender.core.errors import InputError
from extender.snapshot import parse_snapshot
from extender.yaml_reader import yaml_documents
from tests.builders import make_pod


def read(text: str) -> Any:
    (document,) = yaml_documents(text)
    return document


def error_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        list(yaml_documents(text))
    return str(caught.value)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("8", 8),
        ("-8", -8),
        ("+8", 8),
        ("0", 0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.5e+3", 1500.0),
        ("017", 15),
        ("0x1F", 31),
        ("-0x1F", -31),
        ("true", True),
        ("Yes", True),
        ("off", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", float("inf")),
        ("'8'", "8"),
        ('"true"', "true"),
        ("!!str 8", "8"),
        ("! 8", "8"),
        ("!!int '8'", 8),
        ("|-\n  8", "8"),
    ],
)
def test_values(scalar: str, value: object) -> None:
    found = read(f"a: {scalar}")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01",
        "2026-01-01T10:00:00Z",
        "2026-01-01 10:00:00+02:00",
        "2026-13-45",
        "12:30",
        "1:2:3.5",
        "1e5",
        "123e4567",
        "5e10",
        "08",
        "0o17",
        "0x",
        "1_000",
        "=",
        "y",
        "N",
        "v1.2",
        "1.2.3",
        "4Gi",
        "500m",
        "9" * 19,
        "9" * 5000,
    ],
)
def test_text_that_kubectl_or_a_yaml_library_leaves_without_quotes_is_text(text: str) -> None:
    """PyYAML's loader makes dates, minutes and errors of some of these, though kubectl prints them so."""
    assert read(f"a: {text}") == {"a": text}


def test_keys_are_text_as_kubectl_makes_them() -> None:
    assert read("{1: a, true: b, 2026-01-01: c, ~: d}") == {"1": "a", "true": "b", "2026-01-01": "c", "~": "d"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=12,
    )
)
def test_what_a_yaml_library_writes_is_read_back(value: Any) -> None:
    assert read(yaml.safe_dump({"a": value})) == {"a": value}
    assert read(yaml.safe_dump({"a": value}, default_flow_style=True)) == {"a": value}


class TestAliases:
    def test_an_alias_is_a_copy_of_its_own(self) -> None:
        document = read("a: &x {b: [1]}\nc: *x\nd: *x")
        assert document == {"a": {"b": [1]}, "c": {"b": [1]}, "d": {"b": [1]}}
        document["c"]["b"].append(2)
        assert document["a"] == document["d"] == {"b": [1]}

    def test_pods_that_share_their_annotations_in_the_file_do_not_in_memory(self) -> None:
        item = "{kind: Pod, metadata: {name: %s, annotations: %s}}"
        text = f"{{kind: List, items: [{item % ('a', '&w {gpu-fraction: a}')}, {item % ('b', '*w')}]}}"
        first, second = parse_snapshot(text, "c").pods
        first["metadata"]["annotations"]["x"] = "y"
        assert second["metadata"]["annotations"] == {"gpu-fraction": "a"}

    def test_anchors_end_with_their_document(self) -> None:
        assert error_of("a: &x 1\n---\nb: *x") == "line 3, column 4: unknown alias x"

    def test_an_alias_inside_itself(self) -> None:
        assert error_of("a: &x [*x]") == "line 1, column 8: unknown alias x"

    def test_merge(self) -> None:
        document = read("base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\na: {<<: [*b, *m], x: 9}\nc: {<<: *m}")
        assert document["a"] == {"x": 9, "y": 2, "z": 4}
        assert document["c"] == {"y": 3, "z": 4}
        assert read("'<<': 1") == {"<<": 1}
        assert error_of("a: {<<: 5}") == "line 1, column 5: only mappings can be merged"

    @pytest.mark.parametrize(
        "level",
        ["a{0}: &a{0} [{1}]", "a{0}: &a{0} {{x: [{1}]}}", "a{0}: &a{0} {{<<: {{x: [{1}]}}}}"],
        ids=["lists", "mappings", "merged"],
    )
    def test_a_bomb_is_refused_at_once(self, level: str) -> None:
        lines = ["a0: &a0 {k: v}"]
        lines += [level.format(number, ", ".join([f"*a{number - 1}"] * 10)) for number in range(1, 12)]
        started = time.process_time()
        assert "aliases expand to more than 100000 values or 100 levels" in error_of("\n".join(lines))
        assert time.process_time() - started < 5

    def test_merging_the_same_again_and_again_does_not_grow(self) -> None:
        """PyYAML's loader collects every pair before it drops the repeated ones."""
        lines = ["a0: &a0 {k: v}"]
        lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
        assert read("\n".join(lines))["a11"] == {"k": "v"}

    def test_levels_do_not_add_up_through_aliases(self) -> None:
        lines = ["a0: &a0 [1]", *(f"a{number}: &a{number} [*a{number - 1}]" for number in range(1, 120))]
        assert error_of("\n".join(lines)).endswith("aliases expand to more than 100000 values or 100 levels")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_has_a_limit(opening: str) -> None:
    """PyYAML's loader overflows the C stack and takes the process down."""
    assert error_of(opening * 200_000).endswith("nested more than 100 levels deep")
    assert read("[" * 101 + "]" * 101)


def test_without_libyaml_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = yaml.safe_dump_all([make_pod("a").gpu_fraction("0.5").build(), {"a": [1, "8", None, {"b": True}]}])
    with_libyaml = list(yaml_documents(text))
    monkeypatch.setattr("extender.yaml_reader._PARSER", yaml.SafeLoader)
    assert list(yaml_documents(text)) == with_libyaml
    assert error_of("a: *b") == "line 1, column 4: unknown alias b"
    assert error_of("a: [").startswith("line 1, column 5: ")
    assert error_of("a: \x07") == "line 1, column 4: special characters are not allowed"
    assert error_of("[" * 5000).endswith("nested more than 100 levels deep")


def test_five_thousand_pods_take_seconds() -> None:
    import json

    pods = [make_pod(f"p{number}").gpu_fraction("0.5").label("app", "x").build() for number in range(5000)]
    text = json.dumps({"kind": "List", "items": pods})
    started = time.process_time()
    assert len(parse_snapshot(text, "c").pods) == 5000
    assert time.process_time() - started < 3
