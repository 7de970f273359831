"""Settings: where they come from, which source wins, and what each error names."""

from pathlib import Path
from typing import Any

import pytest

from extender.config import Settings, load
from extender.core.errors import InputError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def test_defaults() -> None:
    found = load({}, {}, None)
    assert (found.host, found.port) == ("127.0.0.1", 8888)
    assert (found.shortlist, found.strategy, found.max_body_mib, found.preemption) == (16, "adaptive", 64, False)
    assert (found.observe_host, found.observe_port) == (None, None)
    assert found == Settings()


@pytest.mark.parametrize(
    ("flag", "environment", "file", "wins"),
    [(None, None, None, 16), (None, None, 3, 3), (None, 2, 3, 2), (1, 2, 3, 1), (1, None, 3, 1), (0, 2, None, 0)],
)
def test_flag_beats_environment_beats_file(
    tmp_path: Path, flag: int | None, environment: int | None, file: int | None, wins: int
) -> None:
    path = written(tmp_path, f"shortlist: {file}\n") if file is not None else None
    variables = {"GPU_EXTENDER_SHORTLIST": str(environment)} if environment is not None else {}
    assert load({"shortlist": flag}, variables, path).shortlist == wins


def test_each_setting_has_its_own_source(tmp_path: Path) -> None:
    path = written(tmp_path, "max-body-mib: 5\nstrategy: spread\nclaim-ttl: 0.5\n")
    found = load({"strategy": "fgd", "host": None}, {"GPU_EXTENDER_CLAIM_TTL": "1.5", "PATH": "/bin"}, path)
    assert (found.max_body_mib, found.strategy, found.claim_ttl) == (5, "fgd", 1.5)


@pytest.mark.parametrize(
    ("flag", "environment", "text", "wins"),
    [
        ("snapshot", "KUBECONFIG", "kubeconfig: x\n", "snapshot"),
        ("kubeconfig", "SNAPSHOT", "snapshot: x\n", "kubeconfig"),
        ("kubeconfig", "HOST", "snapshot: x\n", "kubeconfig"),
        ("host", "KUBECONFIG", "snapshot: x\n", "kubeconfig"),
        ("host", "HOST", "snapshot: x\nkubeconfig: null\n", "snapshot"),
        ("snapshot", "HOST", "snapshot: x\nkubeconfig: x\n", "snapshot"),
    ],
)
def test_one_cluster_is_served_and_the_source_that_goes_first_says_which(
    tmp_path: Path, flag: str, environment: str, text: str, wins: str
) -> None:
    found = load({flag: "y"}, {f"GPU_EXTENDER_{environment}": "z"}, written(tmp_path, text))
    assert [name for name in ("snapshot", "kubeconfig") if getattr(found, name) is not None] == [wins]


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_a_switch_in_the_environment(text: str, value: bool) -> None:
    assert load({}, {"GPU_EXTENDER_PREEMPTION": text}, None).preemption is value


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file(tmp_path: Path, text: str) -> None:
    assert load({}, {}, written(tmp_path, text)) == Settings()


@pytest.mark.parametrize(
    ("flags", "environment", "text", "sentence"),
    [
        ({"port": "x"}, {}, "", "flag: port is 'x': "),
        ({"snapshot": "a", "kubeconfig": "b"}, {}, "", "flag: snapshot and kubeconfig: give one of the two"),
        ({}, {"GPU_EXTENDER_SNAPSHOT": "a", "GPU_EXTENDER_KUBECONFIG": "b"}, "", "environment: snapshot and "),
        ({}, {}, "snapshot: a\nkubeconfig: b\n", "settings.yaml: snapshot and kubeconfig: "),
        ({"port": 65536}, {}, "", "flag: port is '65536': "),
        ({"shortlist": -1}, {}, "", "flag: shortlist is '-1': "),
        ({}, {"GPU_EXTENDER_MAX_BODY_MIB": "0"}, "", "environment: max-body-mib is '0': "),
        ({}, {"GPU_EXTENDER_CLAIM_TTL": "nan"}, "", "environment: claim-ttl is 'nan': "),
        ({"idle_timeout": "inf"}, {}, "", "flag: idle-timeout is 'inf': input should be a finite number"),
        ({}, {}, "strategy: best", "strategy is 'best': "),
        ({}, {}, "claim-ttl: [1]", "claim-ttl is '[1]': "),
        ({}, {}, "nonsense: 1", "unknown setting nonsense"),
        ({}, {}, "7: 1", "unknown setting 7"),
        ({}, {}, "- a\n", "must be a mapping of settings, is list"),
        ({}, {}, "a: [", "settings.yaml: line 2, column 1: "),
        ({}, {}, "port: 1\nport: 2\n", "settings.yaml: line 2, column 1: the key port occurs twice"),
        ({}, {}, "port: 1\n---\nport: 2\n", "settings.yaml: must be one document, has 2"),
    ],
)
def test_errors_name_source_and_setting(
    tmp_path: Path, flags: Any, environment: dict[str, str], text: str, sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        load(flags, environment, written(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    if text:
        assert "settings.yaml" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.yaml", tmp_path, binary):
        with pytest.raises(InputError, match=str(path)):
            load({}, {}, path)


def test_every_setting_is_explained() -> None:
    for name, setting in Settings.model_fields.items():
        assert setting.description, name
        assert setting.alias == name.replace("_", "-")
