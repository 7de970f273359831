"""bind against an API that is slow, refuses and fails: nothing is bound twice, and nothing stays behind."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender.binding.api import Pod
from extender.binding.bind import Binder, BindFailed
from extender.binding.reservations import Reservations
from extender.config import Settings
from extender.core import names
from extender.core.errors import ApiError, Conflict, Refused, Unavailable
from extender.core.inspect import picture
from extender.embedded import EmbeddedCluster
from extender.service import embedded_service
from extender.snapshot import Snapshot
from tests.builders import PodBuilder, make_node, make_pod

CARD = 1000
Hook = Callable[[], Awaitable[None]]


class Scripted:
    """A KubeApi that lets others run before and after each call; at the n-th call of a method something happens."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self.cluster = cluster
        self.calls: list[str] = []
        #: (method, which call of it, before or after it takes effect) → what happens then
        self.script: dict[tuple[str, int, str], Hook] = {}

    def fail(self, method: str, which: int, error: Exception) -> None:
        async def raise_it() -> None:
            raise error

        self.script[method, which, "before"] = raise_it

    async def get_pod(self, namespace: str, name: str) -> Pod:
        found: Pod = await self._call("get_pod", namespace, name)
        return found

    async def create_pod(self, pod: Mapping[str, Any]) -> Pod:
        stored: Pod = await self._call("create_pod", pod)
        return stored

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        await self._call("delete_pod", namespace, name, uid)

    async def bind_pod(self, binding: Mapping[str, Any]) -> None:
        await self._call("bind_pod", binding)

    async def _call(self, method: str, *arguments: Any) -> Any:
        self.calls.append(method)
        which = self.calls.count(method)
        await self._happens(method, which, "before")
        answer = await getattr(self.cluster, method)(*arguments)
        await self._happens(method, which, "after")
        return answer

    async def _happens(self, method: str, which: int, when: str) -> None:
        await asyncio.sleep(0)
        await self.script.get((method, which, when), nothing)()


async def nothing() -> None:
    """The script says nothing about this call."""


class World:
    """A cluster, its ledger, and a binder that reaches it through a scripted API."""

    def __init__(self, gpus: int = 2) -> None:
        node, other = (make_node(name).gpus(gpus, mib=CARD).build() for name in ("n", "m"))
        service = embedded_service(Settings(), Snapshot(nodes=(node, other)))
        self.cluster, self.decisions = service.cluster, service.decisions
        self.ledger = service.decisions.ledger
        self.api = Scripted(service.cluster)
        self.now = 0.0
        self.reservations = Reservations(self.api, self.ledger, scheduler="s", image="i")
        self.binder = self.new_binder()

    def new_binder(self) -> Binder:
        return Binder(self.api, self.decisions, self.reservations, process="x", clock=lambda: self.now)

    async def pod(self, builder: PodBuilder) -> Any:
        return await self.cluster.submit(builder.build())

    async def bind(self, pod: Any, node: str = "n", uid: str | None = None) -> None:
        metadata = pod["metadata"]
        await self.binder.bind(metadata["namespace"], metadata["name"], uid or metadata["uid"], node)

    async def error(self, pod: Any, node: str = "n", uid: str | None = None) -> str:
        """What bind says; empty where it succeeds."""
        try:
            await self.bind(pod, node, uid)
        except BindFailed as failure:
            return str(failure)
        return ""

    async def delete(self, pod: Any) -> None:
        metadata = pod["metadata"]
        await self.cluster.delete_pod(metadata["namespace"], metadata["name"], metadata["uid"])

    def seen(self) -> Any:
        return picture(list(self.ledger.snapshot()))

    def reservation_pods(self) -> list[str]:
        return [p["metadata"]["name"] for p in self.cluster.pods() if is_reservation(p)]

    def account(self) -> dict[str, int]:
        """Device → MiB given out, by what is written on bound pods alone."""
        held: dict[str, int] = {}
        for pod in self.cluster.pods():
            annotations = pod["metadata"].get("annotations") or {}
            if pod["spec"].get("nodeName") and names.SHARED_GPUS in annotations:
                for device in annotations[names.VISIBLE_DEVICES].split(","):
                    held[device] = held.get(device, 0) + int(annotations[names.MEMORY_MIB])
        return held


def is_reservation(pod: Any) -> bool:
    return bool(pod["metadata"]["namespace"] == names.RESERVATION_NAMESPACE)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.ledger.check()


# --- once per pod and node --------------------------------------------------------------------------------


async def test_the_same_bind_again_is_a_success(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    await asyncio.gather(*(world.bind(pod) for _ in range(5)))
    await world.bind(pod)
    assert world.api.calls.count("bind_pod") == 1
    assert len(world.reservation_pods()) == 1
    assert list(world.account().values()) == [400]


async def test_idempotence_survives_a_restart(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    await world.bind(pod)
    world.binder = world.new_binder()
    before = world.seen()
    await world.bind(pod)
    assert world.seen() == before


async def test_another_node_meanwhile_and_afterwards(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    first, second = await asyncio.gather(world.error(pod, "n"), world.error(pod, "m"))
    assert [first, second] == ["", "the pod is being bound to node n"]
    assert await world.error(pod, "m") == "pod default/p is already bound to node n"
    assert world.seen()["totals"]["usedMiB"] == 400


async def test_another_uid(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    assert "is another pod by now" in await world.error(pod, uid="older")
    assert world.seen()["totals"]["usedMiB"] == 0


async def test_a_pod_that_does_not_exist(world: World) -> None:
    assert await world.error(make_pod("p").build()) == "pod default/p does not exist"


@pytest.mark.parametrize("node", ["nowhere", ""])
async def test_a_node_that_does_not_exist(world: World, node: str) -> None:
    pod = await world.pod(make_pod("p"))
    assert await world.error(pod, node) == "the node is not known to the ledger"


async def test_a_refused_request_is_refused_here_too(world: World) -> None:
    pod = await world.cluster.create_pod(make_pod("p").gpu_fraction("2").build())
    assert "gpu-fraction" in await world.error(pod)


async def test_whole_and_cpu_pods_get_no_annotations(world: World) -> None:
    for pod in (await world.pod(make_pod("w").gpus(2)), await world.pod(make_pod("c"))):
        await world.bind(pod)
        stored = await world.cluster.get_pod("default", pod["metadata"]["name"])
        assert stored["spec"]["nodeName"] == "n"
        assert not stored["metadata"].get("annotations")
    assert "not enough whole GPUs are free" in await world.error(await world.pod(make_pod("w2").gpus(1)))


async def test_the_claim_ends_with_the_bind(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.decisions.filter(pod, ["n"])
    assert len(world.decisions.claims) == 1
    await world.bind(pod)
    assert len(world.decisions.claims) == 0


# --- failures ---------------------------------------------------------------------------------------------

FAILURES = [Conflict("409"), Refused("422"), Unavailable("no answer"), ApiError("other")]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("method", "which", "devices"),
    [("get_pod", 1, 1), ("create_pod", 1, 1), ("create_pod", 1, 2), ("create_pod", 2, 2), ("bind_pod", 1, 2)],
)
async def test_a_failed_call_leaves_nothing_behind(
    world: World, error: Exception, method: str, which: int, devices: int
) -> None:
    before = world.seen()
    pod = await world.pod(make_pod("p").gpu_memory(400).num_devices(devices))
    world.api.fail(method, which, error)
    assert await world.error(pod) == str(error)
    assert world.seen() == before
    assert world.reservation_pods() == []
    assert world.ledger.reservations("n") == ()
    assert world.binder.oldest_assumed() == 0
    assert await world.error(pod) == "", "the next try starts afresh"


async def test_a_failed_bind_leaves_the_shares_of_others(world: World) -> None:
    first = await world.pod(make_pod("first").gpu_memory(300))
    await world.bind(first)
    before = world.seen()
    world.api.fail("bind_pod", 2, Refused("422"))
    assert await world.error(await world.pod(make_pod("p").gpu_memory(300).num_devices(2))) == "422"
    assert world.seen() == before
    assert len(world.reservation_pods()) == 1


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_a_reservation_that_cannot_be_deleted_stays_known(world: World, error: Exception) -> None:
    """It still holds its device; the next close tries again."""
    world.api.fail("bind_pod", 1, Refused("422"))
    world.api.fail("delete_pod", 1, error)
    assert await world.error(await world.pod(make_pod("p").gpu_memory(400))) == "422"
    [gpu] = world.seen()["nodes"][0]["sharedGpus"]
    assert (gpu["state"], gpu["shares"]) == ("ready", [])
    whole = await world.pod(make_pod("w").gpus(2))
    assert "not enough whole GPUs" in await world.error(whole)
    await world.reservations.close_idle("n")
    assert world.seen()["nodes"][0]["sharedGpus"] == []
    assert world.reservation_pods() == []


async def test_a_reservation_that_is_gone_already(world: World) -> None:
    """Its DELETED event may come later than the 404."""
    world.api.fail("bind_pod", 1, Refused("422"))
    world.api.script["delete_pod", 1, "before"] = lambda: world.cluster.delete_pod(
        names.RESERVATION_NAMESPACE, world.reservation_pods()[0], ""
    )
    assert await world.error(await world.pod(make_pod("p").gpu_memory(400))) == "422"
    assert world.seen()["nodes"][0]["sharedGpus"] == []


# --- others act meanwhile ---------------------------------------------------------------------------------

MOMENTS = [
    ("get_pod", "after"),
    ("create_pod", "before"),
    ("create_pod", "after"),
    ("bind_pod", "before"),
    ("bind_pod", "after"),
]


@pytest.mark.parametrize(("method", "when"), MOMENTS)
async def test_the_pod_is_deleted_meanwhile(world: World, method: str, when: str) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.api.script[method, 1, when] = lambda: world.delete(pod)
    error = await world.error(pod)
    assert bool(error) == ((method, when) != ("bind_pod", "after")), "once bound it was a success"
    await world.reservations.close_idle("n")
    assert world.seen()["totals"]["usedMiB"] == 0
    assert world.reservation_pods() == []
    assert world.ledger.reservations("n") == ()


async def test_the_pod_is_deleted_and_its_gpu_cannot_be_opened(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))

    async def gone_and_refused() -> None:
        await world.delete(pod)
        raise Refused("quota")

    world.api.script["create_pod", 1, "before"] = gone_and_refused
    assert await world.error(pod) == "quota"
    assert world.ledger.reservations("n") == (), "a planned GPU that nobody opens must not stay"


@pytest.mark.parametrize(("method", "when"), MOMENTS[:-1])
async def test_the_pod_is_replaced_meanwhile(world: World, method: str, when: str) -> None:
    """Same name, another pod: it must not get the Binding that was meant for the first."""
    pod = await world.pod(make_pod("p").gpu_memory(400))

    async def replace() -> None:
        await world.delete(pod)
        await world.pod(make_pod("p").uid("second").gpu_memory(900))

    world.api.script[method, 1, when] = replace
    assert await world.error(pod)
    assert not (await world.cluster.get_pod("default", "p"))["spec"].get("nodeName")
    assert world.seen()["totals"]["usedMiB"] == 0


async def test_somebody_else_binds_it_meanwhile(world: World) -> None:
    pod = await world.pod(make_pod("w").gpus(1))
    target = {"metadata": {"namespace": "default", "name": "w"}, "target": {"name": "m"}}
    world.api.script["bind_pod", 1, "before"] = lambda: world.cluster.bind_pod(target)
    assert "already assigned to node m" in await world.error(pod)
    assert [node["wholeGpusHeld"] for node in world.seen()["nodes"]] == [0, 1]


async def test_no_share_lands_on_a_gpu_that_is_being_closed(world: World) -> None:
    """Its reservation pod is about to be gone, and with it the device."""
    first = await world.pod(make_pod("first").gpu_memory(400))
    second = await world.pod(make_pod("second").gpu_memory(400))
    await world.bind(first)
    await world.delete(first)
    world.api.script["delete_pod", 1, "before"] = lambda: world.bind(second)
    await world.reservations.close_idle("n")
    [gpu] = world.seen()["nodes"][0]["sharedGpus"]
    assert (gpu["state"], [share["pod"] for share in gpu["shares"]]) == ("ready", ["second"])


async def test_two_shares_of_a_gpu_that_is_just_being_opened(world: World) -> None:
    pods = [await world.pod(make_pod(f"p{i}").gpu_memory(300)) for i in range(3)]
    assert await asyncio.gather(*(world.error(pod) for pod in pods)) == ["", "", ""]
    assert world.api.calls.count("create_pod") == 1
    assert list(world.account().values()) == [900]


async def test_a_caller_that_goes_away_does_not_stop_a_bind(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    world.api.script["create_pod", 1, "after"] = wait
    caller = asyncio.create_task(world.bind(pod))
    await reached.wait()
    world.now = 3.0
    assert world.binder.oldest_assumed() == 3.0
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    assert await world.error(pod) == "", "the second caller gets the answer of the same bind"
    assert world.api.calls.count("bind_pod") == 1
    assert list(world.account().values()) == [400]
    assert world.binder.oldest_assumed() == 0


async def test_a_bind_that_fails_with_nobody_waiting(world: World) -> None:
    """No "exception was never retrieved", and nothing stays behind."""
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.api.fail("bind_pod", 1, Refused("422"))
    caller = asyncio.create_task(world.bind(pod))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.seen()["totals"]["usedMiB"] == 0
    assert world.reservation_pods() == []


# --- many at once, and any failure ------------------------------------------------------------------------

errors = st.sampled_from(FAILURES)
failing = st.dictionaries(
    st.tuples(st.sampled_from(["create_pod", "bind_pod", "delete_pod"]), st.integers(1, 6)), errors, max_size=4
)
shares = st.lists(st.tuples(st.integers(1, CARD), st.integers(1, 2), st.sampled_from("nm")), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(shares=shares, failing=failing, deleted=st.sets(st.integers(0, 7)))
def test_many_binds_at_once(
    shares: list[tuple[int, int, str]], failing: dict[tuple[str, int], Exception], deleted: set[int]
) -> None:
    """Whatever fails and whoever is deleted meanwhile: no GPU is given out twice, and the books are the pods'."""
    asyncio.run(many(shares, failing, deleted))


async def many(
    shares: list[tuple[int, int, str]], failing: dict[tuple[str, int], Exception], deleted: set[int]
) -> None:
    world = World()
    for (method, which), error in failing.items():
        world.api.fail(method, which, error)
    pods = [
        await world.pod(make_pod(f"p{i}").gpu_memory(mib).num_devices(devices))
        for i, (mib, devices, _) in enumerate(shares)
    ]
    binds = [asyncio.create_task(world.error(pod, node)) for pod, (_, _, node) in zip(pods, shares, strict=True)]
    for index in deleted:
        await asyncio.sleep(0)
        if index < len(pods):
            await world.delete(pods[index])
    await asyncio.gather(*binds)
    world.ledger.check()
    assert all(mib <= CARD for mib in world.account().values())
    world.api.script.clear()
    for node in "nm":
        await world.reservations.close_idle(node)
    assert {gpu["uuid"]: gpu["usedMiB"] for node in world.seen()["nodes"] for gpu in node["sharedGpus"]} == (
        world.account()
    )
    assert len(world.reservation_pods()) == len(world.account())
