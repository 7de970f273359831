from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.core import names
from extender.core.device_report import DeviceReport, Problem, changes, first_difference, health, problem_of

REPORT = DeviceReport("GPU-1", 81559, "boot-1")
WRITTEN = {names.DEVICE: "GPU-1", names.DEVICE_MEMORY_MIB: "81559", names.BOOT_ID: "boot-1"}


def ill(problem: Problem) -> dict[str, str]:
    return {names.DEVICE_HEALTH: health(problem, "because")}


def test_the_first_start_writes_all_three_and_the_second_nothing() -> None:
    assert changes(REPORT, {}) == WRITTEN
    assert changes(REPORT, WRITTEN) == {}


@pytest.mark.parametrize(
    ("written", "problem", "sentence"),
    [
        ({names.DEVICE: "GPU-2"}, Problem.OTHER_DEVICE, "reported GPU-2, holds GPU-1"),
        ({names.DEVICE_MEMORY_MIB: "4096"}, Problem.MEMORY_CHANGED, "reported 4096 MiB, GPU-1 has 81559 MiB"),
    ],
)
def test_another_device_or_size_is_a_difference(written: dict[str, str], problem: Problem, sentence: str) -> None:
    assert first_difference(REPORT, WRITTEN | written) == (problem, sentence)


def test_a_new_boot_with_the_same_device_is_no_difference_but_news() -> None:
    later = DeviceReport("GPU-1", 81559, "boot-2")
    assert first_difference(later, WRITTEN) is None
    assert changes(later, WRITTEN) == {names.BOOT_ID: "boot-2"}


@pytest.mark.parametrize("problem", Problem)
def test_what_is_said_against_a_device_ends_with_its_boot(problem: Problem) -> None:
    later = DeviceReport("GPU-1", 81559, "boot-2")
    assert changes(later, WRITTEN | ill(problem)) == {names.BOOT_ID: "boot-2", names.DEVICE_HEALTH: None}


@pytest.mark.parametrize("problem", Problem)
def test_within_a_boot_only_what_a_start_itself_found_ends_with_a_better_start(problem: Problem) -> None:
    kept = problem in (Problem.XID, Problem.GONE)
    assert changes(REPORT, WRITTEN | ill(problem)) == ({} if kept else {names.DEVICE_HEALTH: None})


def test_what_the_pod_says_is_read_back() -> None:
    assert problem_of({}) is None
    assert problem_of({names.DEVICE_HEALTH: ""}) is None
    assert problem_of(ill(Problem.XID)) is Problem.XID
    assert problem_of({names.DEVICE_HEALTH: "words of a later version"}) is Problem.NVML


ANNOTATIONS = st.dictionaries(
    st.sampled_from([*WRITTEN, names.DEVICE_HEALTH]), st.sampled_from([*WRITTEN.values(), "GPU-2", "7", "boot-2", ""])
)


@given(ANNOTATIONS)
def test_a_device_and_its_size_are_never_replaced(written: dict[str, Any]) -> None:
    if first_difference(REPORT, written) is not None:
        return
    for key, value in changes(REPORT, written).items():
        assert key in (names.BOOT_ID, names.DEVICE_HEALTH) or (key not in written and value is not None)
