"""Who is poked: pods that were rejected before something was freed that they fit on now; nobody else."""

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement
from extender.core.podreader import namespaced_name, uid_of
from extender.core.requests import GpuRequest
from extender.core.values import PodOnNode
from extender.core.waiting import INTERVAL, MOST_DUE, Waiting
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod

CARD = 1000
TTL = 5.0
Json = dict[str, Any]


class Scene:
    """A ledger, pods that wait, and kube-scheduler's calls as it makes them."""

    def __init__(self, *nodes: NodeBuilder, **options: Any) -> None:
        self.now = 100.0
        self.decisions = Decisions(Policy(), claim_ttl=TTL, timer=lambda: self.now)
        self.ledger = self.decisions.ledger
        self.objects: dict[str, Json] = {}
        self.binding: set[str] = set()
        self.waiting = Waiting(self.decisions, self.objects, is_binding=self.binding.__contains__, **options)
        self.pods: dict[str, Json] = {}
        for node in nodes:
            self.put(node)

    def put(self, node: NodeBuilder) -> None:
        built = node.build()
        self.objects[built["metadata"]["name"]] = built
        for read in read_nodes([built]):
            self.ledger.put_node(read)

    def try_(self, pod: PodBuilder | Json) -> list[str]:
        """kube-scheduler tries the pod: filter, and prioritize where there is a choice."""
        built = pod if isinstance(pod, dict) else pod.build()
        self.pods[uid_of(built)] = built
        found = self.decisions.filter(built, list(self.objects)).nodes
        if not found:
            self.waiting.rejected(built)
            return []
        self.waiting.forget(uid_of(built))
        if len(found) > 1:
            self.decisions.prioritize(built, found)
        return found

    def place(self, pod: PodBuilder | Json, node: str = "n") -> str:
        """The pod takes its place; returns its UID."""
        built = pod if isinstance(pod, dict) else pod.build()
        request = GpuRequest.from_pod(built)
        assert isinstance(request, GpuRequest)
        placement = self.decisions.choose(node, request)
        assert isinstance(placement, Placement)
        namespace, name = namespaced_name(built)
        uid = uid_of(built)
        self.decisions.claims.end(uid)
        ids = [f"share-{uid}-{i}" for i in range(placement.new)]
        self.ledger.assume(
            uid=uid, namespace=namespace, name=name, node=node, request=request, placement=placement, new_ids=ids
        )
        self.ledger.confirm(uid)
        return uid

    def end(self, uid: str) -> None:
        """The pod is gone, and so are GPUs that it leaves empty."""
        held = self.ledger.pod(uid)
        self.ledger.release(uid)
        for share in held.shares if held is not None else ():
            state = self.ledger.state(held.node) if held is not None else None
            if state is not None and not any(gpu.shares for gpu in state.gpus if gpu.id == share.gpu_id):
                self.ledger.drop_reservation(state.name, share.gpu_id)

    def due(self, seconds: float = 0.2) -> list[str]:
        """Names of the pods to poke after so long."""
        self.now += seconds
        return [pod.name for pod in self.waiting.due(self.now)]


def node(name: str = "n", gpus: int = 1) -> NodeBuilder:
    return make_node(name).gpus(gpus, mib=CARD)


def share(name: str, mib: int = CARD) -> PodBuilder:
    return make_pod(name).gpu_memory(mib)


@pytest.fixture
def full() -> Scene:
    """One GPU, held by ``first``; ``a`` and then ``b`` wait for half of it."""
    scene = Scene(node())
    scene.place(share("first"))
    for name in ("a", "b"):
        scene.now += 1
        assert scene.try_(share(name, CARD // 2)) == []
    assert scene.due() == []
    return scene


def uid(name: str) -> str:
    return uid_of(make_pod(name).build())


# --- who ----------------------------------------------------------------------------------------------------


def test_those_that_fit_now(full: Scene) -> None:
    full.try_(share("large", CARD + 1))
    full.try_(make_pod("whole").gpus(2))
    full.end(uid("first"))
    assert full.due() == ["a", "b"]


def test_as_many_as_fit_together_in_the_order_of_their_priority(full: Scene) -> None:
    full.try_(share("c", CARD // 2).spec(priority=10))
    full.try_(share("d", CARD // 2).spec(priority=-5))
    full.end(uid("first"))
    assert full.due() == ["c", "a"]


def test_twice_as_many_while_the_room_stays_free(full: Scene) -> None:
    for number in range(20):
        full.try_(share(f"later-{number}", CARD))
    full.end(uid("first"))
    assert full.due() == ["a", "b"]  # as kube-scheduler may have its reasons against them
    assert full.due() == ["later-0", "later-1"]
    assert full.due() == [f"later-{number}" for number in range(2, 6)]
    assert full.due() == [f"later-{number}" for number in range(6, 14)]
    full.place(share("somebody"))
    assert full.due() == []
    full.end(uid("somebody"))
    assert full.due(INTERVAL) == ["a", "b"]


def test_nobody_who_was_judged_after_the_change(full: Scene) -> None:
    full.end(uid("first"))
    full.waiting.rejected(full.pods[uid("a")])  # whatever kube-scheduler has against the node: it knows of the change
    assert full.due() == ["b"]
    assert [full.due(INTERVAL) for _ in range(3)] == [[]] * 3


def test_nobody_who_has_found_a_place(full: Scene) -> None:
    full.end(uid("first"))
    assert full.try_(full.pods[uid("a")]) == ["n"]
    full.place(full.pods[uid("a")])
    assert full.due() == ["b"]
    assert uid("a") not in full.waiting


@pytest.mark.parametrize("how", ["bound elsewhere", "deleted"])
def test_nobody_who_is_bound_or_gone(full: Scene, how: str) -> None:
    full.put(node("m"))
    if how == "deleted":
        full.ledger.release(uid("a"))
    else:
        full.place(full.pods[uid("a")], "m")
    full.end(uid("first"))
    assert full.due() == ["b"]
    assert len(full.waiting) == 1


def test_nobody_whose_bind_is_under_way_until_it_has_ended(full: Scene) -> None:
    full.binding.add(uid("a"))
    full.end(uid("first"))
    assert full.due() == ["b"]
    full.binding.clear()
    assert full.due() == ["a"]


def test_nobody_whose_request_is_refused(full: Scene) -> None:
    full.try_(make_pod("wrong").gpu_fraction("7"))
    full.waiting.rejected(share("nameless").uid("").build())
    assert len(full.waiting) == 2


@pytest.mark.parametrize(
    "blocked",
    [
        share("x").spec(nodeSelector={"pool": "other"}),
        share("x").container(requests={"cpu": "65"}),
        share("x").spec(
            affinity={
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "Exists"}]}]
                    }
                }
            }
        ),
    ],
    ids=["selector", "cpu", "affinity"],
)
def test_nobody_whom_kube_scheduler_would_reject_there(full: Scene, blocked: PodBuilder) -> None:
    full.try_(blocked.spec(priority=100))
    full.end(uid("first"))
    assert full.due() == ["a", "b"]
    assert full.due() == []


def test_taints_count_unless_tolerated() -> None:
    scene = Scene(node().taint("nvidia.com/gpu", "present"))
    scene.place(share("first"))
    scene.try_(share("a"))
    scene.try_(share("b").spec(tolerations=[{"operator": "Exists"}]))
    scene.end(uid("first"))
    assert scene.due() == ["b"]


def test_a_node_whose_object_is_not_at_hand_is_judged_by_its_room(full: Scene) -> None:
    full.try_(share("c").spec(nodeSelector={"pool": "other"}, priority=5))
    full.objects.clear()
    full.end(uid("first"))
    assert full.due() == ["c"]


def test_room_for_cpu_is_shared_too() -> None:
    scene = Scene(make_node("n").gpus(4, mib=CARD).cpu(4))
    scene.place(share("first").container(requests={"cpu": "3500m"}))
    for name in ("a", "b", "c"):
        scene.try_(make_pod(name).gpus(1).container(requests={"cpu": "1800m"}))
    scene.waiting.rejected(make_pod("d").gpus(1).build())
    scene.end(uid("first"))
    assert scene.due() == ["d"]


# --- what counts as freed -----------------------------------------------------------------------------------


def test_a_claim_that_expires(full: Scene) -> None:
    full.end(uid("first"))
    assert full.try_(share("quick")) == ["n"]  # it carries the claim now
    for name in ("a", "b"):
        assert full.try_(full.pods[uid(name)]) == []
    assert full.due() == []
    assert full.due(TTL) == ["a", "b"]


def test_a_claim_that_comes_and_ends_between_two_looks(full: Scene) -> None:
    full.end(uid("first"))
    assert full.due() == ["a", "b"]
    full.now += INTERVAL
    full.try_(share("quick"))
    for name in ("a", "b"):
        assert full.try_(full.pods[uid(name)]) == []
    full.decisions.claims.end(uid("quick"))
    assert full.due() == ["a", "b"]


def test_a_new_node_and_one_that_is_open_again(full: Scene) -> None:
    full.put(node("m").not_ready())
    assert full.due() == []
    full.put(node("m"))
    assert full.due() == ["a", "b"]


@pytest.mark.parametrize("left", ["nothing", "unreadable"])
def test_a_node_on_which_no_device_is_lost_any_more(full: Scene, left: str) -> None:
    """Pods without GPUs waited for that, too; they alone go where another pod cannot be read."""
    full.ledger.drop_reservation("n", "share-" + uid("first") + "-0")
    full.now += 1
    assert full.try_(make_pod("cpu")) == []
    assert full.try_(make_pod("critical").spec(priorityClassName="system-node-critical")) == ["n"]
    assert full.due() == []
    if left == "unreadable":
        full.ledger.observe(PodOnNode("x", "d", "x", "n", {}, undecodable="why"))
    assert full.due() == []
    full.end(uid("first"))
    assert full.due() == (["a", "b", "cpu"] if left == "nothing" else ["cpu"])


def test_a_node_that_is_gone_offers_nothing(full: Scene) -> None:
    full.end(uid("first"))
    full.ledger.drop_node("n")
    assert full.due() == []
    full.put(node())
    assert full.due() == ["a", "b"]


def test_a_node_that_comes_back_as_it_was() -> None:
    scene = Scene(node())
    scene.try_(share("a", CARD + 1))
    scene.ledger.drop_node("n")
    scene.try_(share("b"))
    assert scene.due() == []
    scene.put(node())
    assert scene.due() == ["b"]


def test_room_that_is_taken_or_confirmed_is_no_reason() -> None:
    scene = Scene(node(gpus=2))
    scene.waiting.rejected(share("a").build())  # for reasons of kube-scheduler's: it fits
    assert scene.due() == []
    scene.place(make_pod("w").gpus(1))
    assert scene.due() == []
    scene.ledger.confirm(uid("w"))
    assert scene.due() == []


def test_cpu_alone_may_be_what_was_missing() -> None:
    scene = Scene(make_node("n").gpus(1, mib=CARD).cpu(2))
    scene.place(make_pod("busy").container(requests={"cpu": "2"}))
    assert scene.try_(share("a")) == []  # no room for the reservation pod
    scene.end(uid("busy"))
    assert scene.due() == ["a"]


def test_pods_that_another_process_has_rejected(full: Scene) -> None:
    full.end(uid("first"))
    full.due(INTERVAL)
    pods = [share(name, mib) for name, mib in (("a", 500), ("c", CARD), ("large", CARD + 1))]
    full.waiting.found(pod.build() for pod in pods)
    assert full.due(INTERVAL) == ["a", "b"]  # known already, and in their order
    assert full.due() == ["c"]
    assert full.due(INTERVAL) == []

    after_a_restart = Scene(node())
    after_a_restart.waiting.found([share("old").build()])
    assert after_a_restart.due() == ["old"]


# --- how often ----------------------------------------------------------------------------------------------


def test_a_pod_once_a_second_at_most(full: Scene) -> None:
    full.end(uid("first"))
    assert full.due() == ["a", "b"]
    other = full.place(share("other"))
    for name in ("a", "b"):
        assert full.try_(full.pods[uid(name)]) == []
    full.end(other)
    assert full.due() == []
    assert full.due() == []
    assert full.due(INTERVAL) == ["a", "b"]


def test_once_for_each_change(full: Scene) -> None:
    full.end(uid("first"))
    assert full.due() == ["a", "b"]
    assert [full.due(INTERVAL) for _ in range(5)] == [[]] * 5


def test_a_poke_that_was_not_taken_is_made_again(full: Scene) -> None:
    full.end(uid("first"))
    full.now += 1
    for pod in full.waiting.due(full.now):
        full.waiting.missed(pod)
    assert full.due() == []
    assert full.due(INTERVAL) == ["a", "b"]
    assert full.due(INTERVAL) == []


def test_few_at_a_time_and_every_node_has_its_turn() -> None:
    scene = Scene(*(node(f"n{number}") for number in range(60)))
    taken = [scene.place(share(f"first-{number}"), f"n{number}") for number in range(60)]
    for number in range(60):
        scene.try_(share(f"p{number}"))
    for held in taken:
        scene.end(held)
    due = [scene.due() for _ in range(3)]
    assert [len(names) for names in due] == [MOST_DUE] * 3
    assert len({name for names in due for name in names}) == 60


def test_few_at_a_time_on_one_node() -> None:
    scene = Scene(node())
    scene.place(share("first"))
    for number in range(50):
        scene.try_(share(f"p{number}", 1))
    scene.end(uid("first"))
    assert [len(scene.due()) for _ in range(4)] == [MOST_DUE, MOST_DUE, 50 - 2 * MOST_DUE, 0]


def test_more_only_after_some_were_poked_in_vain(full: Scene) -> None:
    for number in range(20):
        full.try_(share(f"later-{number}", CARD))
    full.binding.update(full.pods)
    full.end(uid("first"))
    assert [full.due() for _ in range(5)] == [[]] * 5
    full.binding.clear()
    assert full.due() == ["a", "b"]


def test_the_oldest_is_given_up_when_too_many_wait() -> None:
    scene = Scene(node(), most=2)
    scene.place(share("first"))
    for name in ("a", "b", "a", "c"):
        scene.try_(share(name, 100))
    assert len(scene.waiting) == 2
    scene.end(uid("first"))
    assert scene.due() == ["a", "c"]


def test_nothing_waits_nothing_is_due(full: Scene) -> None:
    for name in ("a", "b"):
        full.waiting.forget(uid(name))
        full.waiting.forget(uid(name))
    full.end(uid("first"))
    assert full.due() == []


# --- nobody is forgotten ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(80))
def test_in_the_end_what_waits_does_not_fit(seed: int) -> None:
    """kube-scheduler tries a pod when it is new or poked, and never otherwise."""
    random = Random(seed)
    scene = Scene(*(node(f"n{number}", random.choice([1, 2])).cpu(3) for number in range(3)))
    placed: list[str] = []
    nominated: list[tuple[str, str]] = []

    def kube_scheduler_tries(built: Json) -> None:
        found = scene.try_(built)
        if found:
            nominated.append((uid_of(built), found[0]))

    def bind(which: tuple[str, str]) -> None:
        nominated.remove(which)
        request = GpuRequest.from_pod(scene.pods[which[0]])
        assert isinstance(request, GpuRequest)
        scene.decisions.claims.end(which[0])
        if isinstance(scene.decisions.choose(which[1], request), Placement) and random.random() < 0.8:
            placed.append(scene.place(scene.pods[which[0]], which[1]))
        else:
            kube_scheduler_tries(scene.pods[which[0]])  # errors are tried again without a poke

    def poked(names: Iterable[str]) -> None:
        for name in names:
            kube_scheduler_tries(scene.pods[uid(name)])

    for number in range(120):
        scene.now += random.expovariate(5)
        match random.randrange(6):
            case 0 | 1:
                pod = random.choice(
                    [share(f"p{number}", random.choice([300, 500, 1000])), make_pod(f"p{number}").gpus(1)]
                )
                kube_scheduler_tries(pod.container(requests={"cpu": random.choice(["0", "1"])}).build())
            case 2 if nominated:
                bind(random.choice(nominated))
            case 3 if placed:
                scene.end(placed.pop(random.randrange(len(placed))))
            case 4:
                poked(scene.due(0))
            case 5 if random.random() < 0.2:
                name = random.choice(list(scene.objects))
                scene.put(node(name).cpu(3) if random.random() < 0.5 else node(name).cpu(3).cordoned())
    for _ in range(60):
        while nominated:
            bind(nominated[0])
        poked(scene.due(INTERVAL))
    scene.ledger.check()
    scene.now += TTL
    for left in list(scene.waiting._pods.values()):
        found = scene.decisions.filter(scene.pods[left.uid], list(scene.objects)).nodes
        cpu = left.request.cpu_milli
        rooms = [scene.ledger.state(name) for name in found]
        assert [room.name for room in rooms if room is not None and room.free["cpu"] >= cpu] == []


# --- binds that the API has refused -------------------------------------------------------------------------


def refuse(scene: Scene, pod: PodBuilder, node: str = "n") -> float:
    """filter has found that node, and the API refused the Binding; kube-scheduler tries again at once."""
    assert node in scene.try_(pod)
    scene.decisions.claims.end(uid_of(pod.build()))
    return scene.decisions.refused.failed(uid_of(pod.build()), node)


def test_a_pod_that_was_refused_is_poked_when_its_wait_ends() -> None:
    scene = Scene(node())
    pod = share("p")
    seconds = refuse(scene, pod)
    assert scene.try_(pod) == []
    assert scene.due(seconds - 0.5) == []
    assert scene.due(0.5) == ["p"]
    assert scene.due(30) == [], "once for each wait"
    assert scene.try_(pod) == ["n"]


def test_each_wait_has_its_poke_and_each_node_its_wait() -> None:
    scene = Scene(node("n"), node("m"))
    pod = share("p")
    first = refuse(scene, pod, "n")
    assert scene.try_(pod) == ["m"]
    second = scene.decisions.refused.failed(uid_of(pod.build()), "m")
    assert scene.try_(pod) == []
    assert scene.due(first) == ["p"]
    assert scene.due(second - first) == ["p"]


def test_nobody_is_poked_who_would_find_no_room_there() -> None:
    scene = Scene(node())
    pod = share("p")
    seconds = refuse(scene, pod)
    scene.try_(pod)
    other = scene.place(share("other"))
    assert scene.due(seconds) == []
    scene.end(other)
    assert scene.due() == ["p"]


def test_who_is_being_bound_or_was_placed_is_not_poked_at_the_end_of_a_wait() -> None:
    scene = Scene(node())
    pods = [share("binding", 100), share("placed", 100)]
    seconds = max(refuse(scene, pod) for pod in pods)
    for pod in pods:
        scene.try_(pod)
    scene.binding.add(uid_of(pods[0].build()))
    scene.place(pods[1])
    assert scene.due(seconds) == []
    scene.binding.clear()
    assert scene.due() == ["binding"]


def test_a_poke_that_was_missed_at_the_end_of_a_wait_is_due_again() -> None:
    scene = Scene(node())
    pod = share("p")
    seconds = refuse(scene, pod)
    scene.try_(pod)
    scene.now += seconds
    [due] = scene.waiting.due(scene.now)
    scene.waiting.missed(due)
    assert scene.due(INTERVAL) == ["p"]
