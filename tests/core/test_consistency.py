"""check finds each kind of contradiction, and none where there is none."""

from typing import Any

import pytest

from extender.binding.records import config_map_of
from extender.core import names
from extender.core.consistency import differences
from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.podreader import pod_on_node, uid_of
from extender.core.record import Entry, NodeRecord, Opened
from extender.reflector import Reflector
from tests.builders import PodBuilder, make_node, make_pod

CARD = 1000


def reservation(gpu_id: str = "share-1", device: str = "GPU-1", node: str = "n", mib: object = CARD) -> Any:
    pod = make_pod(gpu_id, names.RESERVATION_NAMESPACE).gpus(1).on_node(node).annotation(names.DEVICE, device)
    return pod.annotation(names.DEVICE_MEMORY_MIB, str(mib)).build()


def share(pod: PodBuilder, gpus: str = "share-1", devices: str = "GPU-1", mib: str = "500", node: str = "n") -> Any:
    pod.annotation(names.SHARED_GPUS, gpus).annotation(names.VISIBLE_DEVICES, devices)
    return pod.annotation(names.MEMORY_MIB, mib).on_node(node).build()


def half(name: str = "p") -> PodBuilder:
    return make_pod(name).gpu_memory(500)


def record(shares: dict[str, int] | str) -> Any:
    """The node record with these pods' shares of share-1, or with this text."""
    opened = Opened("share-1", uid_of(reservation()), "GPU-1", CARD)
    made = NodeRecord.empty()
    for name, mib in shares.items() if isinstance(shares, dict) else ():
        entry = Entry("share-1", uid_of(half(name).build()), f"default/{name}", mib, "x-1")
        changed = made.with_entries([entry], {"share-1": opened}, {})
        assert isinstance(changed, NodeRecord)
        made = changed
    config_map = config_map_of("n", made)
    return config_map if isinstance(shares, dict) else config_map | {"data": {"node": "n", "record": shares}}


def found(
    pods: list[Any],
    *,
    ledger_sees: list[Any] | None = None,
    recorded: dict[str, int] | str | None = None,
    gpus: int = 2,
) -> dict[str, list[str]]:
    """Kind → objects, where the API shows ``pods``, and this node record if there is one."""
    decisions = Decisions(Policy(), claim_ttl=5, timer=lambda: 0.0)
    reflector = Reflector(decisions)
    nodes = [make_node("n").gpus(gpus, mib=CARD).build()]
    reflector.nodes(read_nodes(nodes))
    reflector.pods(pods if ledger_sees is None else ledger_sees)
    if recorded is not None:
        reflector.config_map(record(recorded))
    told: dict[str, list[str]] = {}
    for difference in differences(decisions.ledger, pods):
        assert difference.as_json() == {
            "kind": difference.kind,
            "object": difference.object,
            "text": difference.text,
        }
        assert "\n" not in difference.text
        told.setdefault(difference.kind, []).append(difference.object)
    return told


def test_nothing_to_find() -> None:
    waiting, ended = make_pod("w").gpu_fraction("0.5").build(), make_pod("e").gpus(8).on_node("n", "Failed").build()
    assert found([reservation(), share(half()), make_pod("g").gpus(1).on_node("n").build(), waiting, ended]) == {}


CASES: dict[str, tuple[list[Any], dict[str, list[str]]]] = {
    "lost": ([share(half())], {"lost": ["share-1"]}),
    "too much on a GPU": (
        [reservation(), share(half("p")), share(half("q")), share(half("r"))],
        {"overcommitted": ["share-1"]},
    ),
    "too much on a node": (
        [reservation(), share(half()), make_pod("g").gpus(2).on_node("n").build()],
        {"overcommitted": ["n"]},
    ),
    "a device twice": (
        [reservation(), reservation("share-2"), share(half())],
        {"device-twice": ["n"], "unusable": ["share-1", "share-2"]},
    ),
    "an unreadable pod": ([reservation(), share(half(), mib="x")], {"unreadable": ["default/p"]}),
    "an unreadable report": ([reservation(mib="x")], {"unreadable": ["share-1"], "unusable": ["share-1"]}),
    "two compute modes": (
        [
            reservation(),
            share(half()),
            share(
                make_pod("q")
                .container("main")
                .container_gpu_memory("main", limit="500Mi")
                .compute_mode("main", names.SM_SHARING)
            ),
        ],
        {"unusable": ["share-1"]},
    ),
    "forged": ([make_pod("p").annotation(names.SHARED_GPUS, "share-1").build()], {"forged": ["default/p"]}),
    "a device out of nothing": (
        [make_pod("x", names.RESERVATION_NAMESPACE).annotation(names.DEVICE, "GPU-1").build()],
        {"forged": ["gpu-reservations/x"]},
    ),
    "unasked": ([reservation(), share(make_pod("p"))], {"unasked": ["default/p"]}),
    "bypassed": ([half().on_node("n").build()], {"bypassed": ["default/p"]}),
    "another size": ([reservation(), share(half(), mib="499")], {"size": ["default/p"]}),
    "fewer devices": ([reservation(), share(half().num_devices(2))], {"size": ["default/p"]}),
    "no such node": ([make_pod("p").on_node("gone").build()], {"unknown-node": ["default/p"]}),
}


@pytest.mark.parametrize(("pods", "expected"), CASES.values(), ids=CASES.keys())
def test_the_api_against_itself(pods: list[Any], expected: dict[str, list[str]]) -> None:
    assert found(pods) == expected


def test_the_ledger_against_the_api() -> None:
    shown = [reservation(), share(half())]
    assert found(shown, ledger_sees=[reservation()]) == {"missed": ["default/p"]}
    assert found([reservation()], ledger_sees=shown) == {"redundant": ["default/p"]}
    other = [reservation(), share(half(), mib="400")]
    assert found(shown, ledger_sees=other) == {"different": ["default/p"]}
    unbound = [reservation(), half().build()]
    assert found(unbound, ledger_sees=shown) == {"redundant": ["default/p"]}


def test_pods_against_the_node_record() -> None:
    pods = [reservation(), share(half("p")), share(half("q"))]
    assert found(pods, recorded={"p": 500, "q": 500}) == {}
    assert found(pods, recorded={"p": 500, "q": 400}) == {"record": ["default/q"]}
    assert found(pods, recorded={"p": 500}) == {"record": ["default/q"]}
    unserved = [*pods[:2], half("q").on_node("n").build()]
    assert found(unserved, recorded={"p": 500, "q": 500}) == {"record": ["default/q"]}, "it was bound with one"
    assert found(unserved, recorded={"p": 500}) == {"bypassed": ["default/q"]}


def test_what_a_record_cannot_have_is_no_difference_of_its_own() -> None:
    too_much = [reservation(), share(half("p")), share(half("q")), share(half("r"))]
    assert found(too_much, recorded={"p": 500, "q": 500}) == {"overcommitted": ["share-1"]}
    unreserved = [reservation(), share(half("p")), share(half("q"), gpus="share-2", devices="GPU-2")]
    assert found(unreserved, recorded={"p": 500}) == {"lost": ["share-2"]}


def test_an_unreadable_record_is_told_once() -> None:
    assert found([reservation(), share(half("p"))], recorded="no JSON") == {"unreadable": ["n"]}


def test_a_fraction_is_compared_with_the_size_of_its_card() -> None:
    pod = make_pod("p").gpu_fraction("0.5")
    assert found([reservation(mib=900), share(pod, mib="450")]) == {}
    assert found([reservation(mib=900), share(make_pod("p").gpu_fraction("0.5"), mib="500")]) == {"size": ["default/p"]}


def test_every_kind_is_tested() -> None:
    """The kinds are labels of a metric: a new one belongs in this file."""
    import inspect
    import re

    from extender.core import consistency

    kinds = set(re.findall(r'Difference\("([a-z-]+)"', inspect.getsource(consistency)))
    tested = {kind for _, expected in CASES.values() for kind in expected} | {
        "missed",
        "redundant",
        "different",
        "record",
    }
    assert kinds == tested
    assert pod_on_node(share(half())) is not None
