"""Background work against a real API server and kube-scheduler, with the rights that the manifests give."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from extender import wire
from extender.cluster import KubeCluster
from extender.core import names, notices
from extender.core.decisions import Decisions, Policy
from extender.core.nodereader import read_nodes
from extender.core.notices import About
from extender.core.placement import Placement
from extender.core.podreader import uid_of
from extender.core.requests import GpuRequest
from extender.core.waiting import Waiting
from extender.elector import LEASE, Elector, Terms
from extender.events import Events
from extender.kube import Limits
from extender.pokes import Pokes
from tests.builders import make_node, make_pod
from tests.controlplane.client import Client, path_of
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.process import PATIENCE, free_port
from tests.controlplane.users import EXTENDER
from tests.manifests import BASE, scheduler_configuration

CARD = 1000
Json = dict[str, Any]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        plane.kubectl("apply", "--server-side", "-k", str(BASE))
        yield plane


@pytest.fixture
async def admin(plane: ControlPlane) -> AsyncIterator[Client]:
    async with Client(plane) as client:
        yield client


@asynccontextmanager
async def connection(plane: ControlPlane) -> AsyncIterator[KubeCluster]:
    """The product's own client, as the extender's service account."""
    cluster = await KubeCluster.connect(plane.kubeconfig(EXTENDER), Limits(request=1.0))
    yield cluster
    await cluster.close()


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def until(holds: Callable[[], bool], seconds: float) -> float:
    """How long it took. Raises AssertionError after so many seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not after {seconds} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


# --- leader election ----------------------------------------------------------------------------------------


class Candidate:
    def __init__(self, cluster: KubeCluster, identity: str) -> None:
        terms = Terms(duration=4, renew_deadline=2.5, retry=0.5)
        clock = time.monotonic
        self.elector = Elector(
            cluster, "gpu-extender", LEASE, identity, clock=clock, now=lambda: datetime.now(UTC), terms=terms
        )
        self.works = False

    async def run(self) -> None:
        await self.elector.run(self._work)

    async def _work(self) -> None:
        self.works = True
        try:
            await asyncio.Event().wait()
        finally:
            self.works = False


async def test_one_leads_through_a_pause_of_the_api_and_hands_over_when_it_ends(plane: ControlPlane) -> None:
    async with connection(plane) as one, connection(plane) as two:
        a, b = Candidate(one, "a"), Candidate(two, "b")
        async with running(b.run()):
            async with running(a.run()):
                await until(lambda: a.works or b.works, PATIENCE)
                for _ in range(60):
                    await asyncio.sleep(0.05)
                    assert a.works != b.works
                plane.apiserver.pause()
                try:
                    await until(lambda: not (a.works or b.works), 4)
                    await asyncio.sleep(3)
                    assert [found for found in (a, b) if found.works or found.elector.is_leader] == []
                finally:
                    plane.apiserver.resume()
                await until(lambda: a.works or b.works, PATIENCE)
                for _ in range(60):
                    await asyncio.sleep(0.05)
                    assert a.works != b.works
            assert await until(lambda: b.works, 2) < 1.5
        lease = plane.kubectl("get", "lease", LEASE, "-n", "gpu-extender", "-o", "jsonpath={.spec.holderIdentity}")
        assert lease == ""


async def test_a_candidate_that_vanishes_is_followed(plane: ControlPlane) -> None:
    async with connection(plane) as one, connection(plane) as two:
        a, b = Candidate(one, "vanishing"), Candidate(two, "following")
        async with running(a.run()):
            await until(lambda: a.works, PATIENCE)
            async with running(b.run()):
                await asyncio.sleep(1)
                await one.close()  # as if killed: nothing of it reaches the API any more
                await until(lambda: not a.works, 3)
                assert not b.works
                await until(lambda: b.works, PATIENCE)


# --- pokes --------------------------------------------------------------------------------------------------


class SmallExtender:
    """filter over HTTP on a ledger that a test moves; the scheduler itself binds."""

    def __init__(self, cluster: KubeCluster) -> None:
        self.decisions = Decisions(Policy(), claim_ttl=2.0, timer=time.monotonic)
        self.nodes: dict[str, Json] = {}
        self.waiting = Waiting(self.decisions, self.nodes)
        self.pokes = Pokes(cluster, self.waiting, process="test", clock=time.monotonic)
        self.asked: list[str] = []

    def add_node(self, node: Json) -> None:
        self.nodes[node["metadata"]["name"]] = node
        for read in read_nodes([node]):
            self.decisions.ledger.put_node(read)

    def hold(self, pod: Json, node: str) -> None:
        """The ledger knows that the pod has its place."""
        request = GpuRequest.from_pod(pod)
        assert isinstance(request, GpuRequest)
        placement = self.decisions.choose(node, request)
        assert isinstance(placement, Placement)
        uid, name = uid_of(pod), pod["metadata"]["name"]
        self.decisions.ledger.assume(
            uid=uid, namespace="default", name=name, node=node, request=request, placement=placement, new_ids=[name]
        )
        self.decisions.ledger.confirm(uid)

    def release(self, pod: Json, node: str) -> None:
        self.decisions.ledger.release(uid_of(pod))
        self.decisions.ledger.drop_reservation(node, pod["metadata"]["name"])

    async def filter(self, request: web.Request) -> web.Response:
        args = wire.read(wire.ExtenderArgs, await request.read())
        pod, nodes = args.pod(), args.names()
        self.asked.append(pod["metadata"]["name"])
        found = self.decisions.filter(pod, nodes)
        self.waiting.forget(uid_of(pod)) if found.nodes else self.waiting.rejected(pod)
        return web.json_response(wire.filter_result(args, found.nodes, found.failed, found.unresolvable))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """The address."""
        app = web.Application()
        app.router.add_post("/filter", self.filter)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


@pytest.fixture
async def small(plane: ControlPlane, admin: Client) -> AsyncIterator[SmallExtender]:
    """It serves the manifests' kube-scheduler, whose other verbs are left out; node ``n`` has one GPU."""
    async with connection(plane) as cluster:
        small = SmallExtender(cluster)
        node = make_node("n").gpus(1, mib=CARD).build()
        await admin.create_node(node)
        small.add_node(node)
        async with small.serving() as address:
            configuration = scheduler_configuration()
            (ours,) = configuration["extenders"]
            for verb in ("prioritizeVerb", "preemptVerb", "bindVerb"):
                del ours[verb]
            ours["urlPrefix"] = address
            del configuration["leaderElection"]
            scheduler = await asyncio.to_thread(plane.start_scheduler, configuration)
            try:
                async with running(small.pokes.run()):
                    yield small
            finally:
                await asyncio.to_thread(scheduler.stop)
                await asyncio.to_thread(plane.kubectl, "delete", "pods", "--all", "--force")
                await asyncio.to_thread(plane.kubectl, "delete", "node", "n")


def share(name: str, mib: int) -> Json:
    return make_pod(name).gpu_memory(mib).spec(schedulerName="gpu-scheduler").build()


async def settle(small: SmallExtender, seconds: float = 4.0) -> None:
    """Returns once kube-scheduler has asked nothing for so long."""
    asked, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        if len(small.asked) != asked:
            asked, since = len(small.asked), time.monotonic()
        await asyncio.sleep(0.05)


async def wait_often(small: SmallExtender, admin: Client, pod: Json) -> None:
    """The pod is rejected so often that its back-off is as long as it gets."""
    for number in range(4):
        before = len(small.asked)
        await admin.patch(path_of(pod), {"metadata": {"annotations": {"turn": str(number)}}})
        await until(lambda before=before: len(small.asked) > before, PATIENCE)  # type: ignore[misc]


async def time_to_bind(admin: Client, pod: Json, seconds: float) -> float:
    began = time.monotonic()
    while not (await admin.get(path_of(pod)))["spec"].get("nodeName"):
        assert time.monotonic() - began < seconds, f"not bound after {seconds} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_what_kube_scheduler_does_not_see_is_told_to_those_that_fit(small: SmallExtender, admin: Client) -> None:
    elsewhere = share("elsewhere", CARD)
    small.hold(elsewhere, "n")  # another extender's room, say
    waits, large = [await admin.create_pod(share(name, mib)) for name, mib in (("waits", 500), ("large", CARD + 1))]
    await wait_often(small, admin, waits)
    await settle(small)
    assert small.pokes.sent == 0
    small.release(elsewhere, "n")
    assert await time_to_bind(admin, waits, 5) < 5
    assert (await admin.get(path_of(waits)))["metadata"]["annotations"][names.POKE] == "test-1"
    assert names.POKE not in (await admin.get(path_of(large)))["metadata"]["annotations"]


async def test_a_scheduler_that_is_faster_than_our_watch_is_asked_again(small: SmallExtender, admin: Client) -> None:
    holder = await admin.create_pod(share("holder", CARD))
    await time_to_bind(admin, holder, PATIENCE)
    small.hold(holder, "n")
    waits = await admin.create_pod(share("waits", 500))
    await wait_often(small, admin, waits)
    await settle(small)
    before = len(small.asked)
    await admin.delete(path_of(holder), {"gracePeriodSeconds": 0})
    deleted = time.monotonic()
    await until(lambda: len(small.asked) > before, 5)  # it asks, and the ledger does not know yet
    await asyncio.sleep(0.3)
    assert not (await admin.get(path_of(waits)))["spec"].get("nodeName")
    small.release(holder, "n")
    await time_to_bind(admin, waits, 5)
    assert time.monotonic() - deleted < 5


# --- events -------------------------------------------------------------------------------------------------


async def test_events_show_where_people_look(plane: ControlPlane, admin: Client) -> None:
    pod = await admin.create_pod(make_pod("told").build())
    node = await admin.create_node(make_node("told").build())
    async with connection(plane) as cluster:
        events = Events(cluster, instance="test", now=lambda: datetime.now(UTC), clock=time.monotonic)
        async with running(events.run()):
            events.tell(notices.refused(About.pod("default", "told", uid_of(pod)), "é" * 5000))
            events.tell(notices.closed(About.node("told", node["metadata"]["uid"]), ["GPU-1"]))
            events.tell(notices.refused(About.pod("absent", "told", "uid"), "nobody reads it"))
            await until(lambda: events.sent + events.dropped == 3, PATIENCE)
    assert events.dropped == 1
    assert "GpuRequestRefused" in await asyncio.to_thread(plane.kubectl, "describe", "pod", "told")
    described = await asyncio.to_thread(plane.kubectl, "describe", "node", "told")
    assert "GpuNodeClosed" in described
    assert "gpu-extender" in described
