"""The background work: what is left over goes, what is needed stays, and a lost device is found again."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from extender.core import names
from extender.core.errors import Unavailable
from extender.core.placement import REASON_TEXT
from extender.core.record import record_name
from extender.core.values import NOT_NEEDED
from tests.binding.stage import CARD, GPUS, GpuCluster, World
from tests.binding.world import Process, violations
from tests.builders import make_pod

#: One more than the requests of an undisturbed repair, and of an undisturbed clean-up.
REPAIR = 12
CLEAN_UP = 14


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.ledger.check()


def share(name: str = "p", mib: int = 400) -> Any:
    return make_pod(name).gpu_memory(mib)


# --- entries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", ["late-killed", "killed-before", "killed-after"])
async def test_the_entry_of_a_dead_process_is_dropped_after_a_fence(world: World, killed: str) -> None:
    world.api.faults["bind_pod", 1] = killed
    pod = await world.pod(share(mib=CARD).num_devices(GPUS))
    assert await world.error(pod) == "killed"
    dead = world.api
    world.restart()
    other = await world.pod(share("other", CARD))
    bound = killed == "killed-after"
    assert await world.error(other), "its room is held"
    await world.pass_by(15)
    assert "patch_pod" not in world.api.calls, "a bind may take that long"
    await world.pass_by(10)
    assert world.kinds().count("EntryDropped") == (not bound)
    await dead.land_late_requests()
    assert bool((await world.stored(pod))["spec"].get("nodeName")) == bound
    assert (await world.error(other) == "") == (not bound)
    assert violations(world.cluster, CARD, GPUS) == []


async def test_an_entry_stays_while_its_fence_fails(world: World) -> None:
    world.api.faults["bind_pod", 1] = "late-killed"
    pod = await world.pod(share(mib=CARD).num_devices(GPUS))
    await world.error(pod)
    dead = world.api
    world.restart()
    for call in range(1, 20):
        world.api.faults["patch_pod", call] = "refused"
    await world.pass_by(60)
    assert len(await world.entries()) == GPUS
    await dead.land_late_requests()
    await world.pass_by(30)
    assert len(await world.entries()) == GPUS, "it is bound"
    assert world.kinds() == []


async def test_a_try_that_came_after_the_fenced_one_keeps_its_entry(world: World) -> None:
    """The fence was for the try that stood in the record then; the entry is another one by the time of the PUT."""
    world.api.faults["bind_pod", 1] = "killed-before"
    pod = await world.pod(share())
    assert await world.error(pod) == "killed"
    world.restart()
    await world.pass_by(15)
    other = Process(world.cluster)

    async def other_binds() -> None:
        assert await other.bind(pod, "n") is None

    world.api.script["patch_pod", 1, "after"] = other_binds
    await world.pass_by(10)
    assert [entry.pod for entry in await world.entries()] == ["default/p"]
    assert list(world.account().values()) == [400]


@pytest.mark.parametrize("grace", [0, 30, 90])
async def test_an_entry_whose_pod_went_while_nobody_watched(world: World, grace: int) -> None:
    """Maybe by force, a moment before this process began: then its processes run for their grace period more."""
    pod = await world.pod(share().spec(terminationGracePeriodSeconds=grace))
    await world.bind(pod)
    world.process.die()
    await world.delete(pod)
    world.restart()
    await world.pass_by(grace)
    assert world.seen()["totals"]["usedMiB"] == 400
    await world.pass_by(10)
    assert world.seen()["totals"]["usedMiB"] == 0
    await world.pass_by(70)
    assert world.reservation_pods() == []
    assert list((await world.record()).opened()) == []


async def test_entries_of_a_record_that_was_deleted_are_forgotten(world: World) -> None:
    world.api.faults["bind_pod", 1] = "killed-before"
    pod = await world.pod(share(mib=CARD))
    await world.error(pod)
    world.restart()
    world.cluster._config_maps.clear()  # Nobody hears of it.
    await world.pass_by(30)
    assert world.seen()["totals"]["usedMiB"] == 0


async def test_a_bind_that_nobody_tries_again_is_settled(world: World) -> None:
    world.api.faults = {("bind_pod", 1): "late", ("patch_pod", 1): "never"}
    pod = await world.pod(share())
    assert "nobody knows" in await world.error(pod)
    assert world.seen()["totals"]["usedMiB"] == 400
    await world.process.binder.settle()
    assert world.seen()["totals"]["usedMiB"] == 0
    assert await world.entries() == []
    assert world.process.binder.oldest_assumed() == 0
    await world.api.land_late_requests()
    assert world.account() == {}


# --- idle GPUs --------------------------------------------------------------------------------------------


async def test_an_idle_gpu_closes_after_a_minute(world: World) -> None:
    pod = await world.pod(share())
    await world.bind(pod)
    await world.pass_by(120)
    await world.delete(pod)
    await world.pass_by(55)
    assert len(world.reservation_pods()) == 1
    late = await world.pod(share("late"))
    await world.bind(late)
    await world.pass_by(0)
    await world.delete(late)
    await world.pass_by(55)
    assert len(world.reservation_pods()) == 1, "a share begins the minute anew"
    await world.pass_by(10)
    assert world.reservation_pods() == []
    assert world.kinds() == ["GpuClosed"]
    assert list((await world.record()).opened()) == []


async def test_a_gpu_whose_delete_has_failed_is_closed_again(world: World) -> None:
    pod = await world.pod(share())
    await world.bind(pod)
    await world.delete(pod)
    world.api.fail("delete_pod", 1, Unavailable("no answer"))
    await world.pass_by(60)
    assert list(world.gpus().values()) == ["closing"]
    assert world.kinds() == []
    world.restart()
    await world.pass_by(0)
    assert world.reservation_pods() == []


async def test_whole_gpus_that_are_short_close_idle_ones_at_once(world: World) -> None:
    for node in "nm":
        pod = await world.pod(share(node))
        await world.bind(pod, node)
        await world.delete(pod)
    whole = await world.pod(make_pod("w").gpus(GPUS))
    world.process.waiting.append(whole)
    await world.pass_by(0)
    assert len(world.reservation_pods()) == 1, "one node is enough"
    node = "n" if not world.gpus() else "m"
    assert await world.error(whole, node) == ""


async def test_a_pod_that_fits_anyway_closes_nothing(world: World) -> None:
    pod = await world.pod(share())
    await world.bind(pod)
    await world.delete(pod)
    world.process.waiting += [await world.pod(make_pod("w").gpus(1)), await world.pod(share("s"))]
    await world.pass_by(0)
    assert len(world.reservation_pods()) == 1


async def test_idle_gpus_of_a_node_close_on_demand(world: World) -> None:
    pod = await world.pod(share())
    await world.bind(pod)
    await world.delete(pod)
    world.process.reconciler.close_idle_now("n")
    await world.pass_by(0)
    assert world.reservation_pods() == []


async def test_a_share_that_lands_while_an_idle_gpu_is_closed(world: World) -> None:
    """Another extender has seen it idle too: whoever writes first wins."""
    pod = await world.pod(share())
    await world.bind(pod)
    await world.delete(pod)
    late = await world.pod(share("late"))
    other = Process(world.cluster)

    async def other_binds() -> None:
        assert await other.bind(late, "n") is None

    world.api.script["put_config_map", 1, "before"] = other_binds
    await world.pass_by(60)
    assert violations(world.cluster, CARD, GPUS) == []
    assert list(world.account().values()) == [400]


async def test_the_word_of_a_close_that_lands_under_a_share_is_taken_back(world: World) -> None:
    """Its sender has died: nobody else would ever let another share onto that GPU."""
    await world.bind(await world.pod(share("first")))
    [reservation] = world.reservations()
    await world.cluster.annotate(reservation, {names.CLOSED_BECAUSE: NOT_NEEDED})
    assert world.gpus() == {"GPU-n-0": "closing"}
    await world.pass_by(5)
    assert world.gpus() == {"GPU-n-0": "ready"}
    await world.bind(await world.pod(share("second", CARD - 400)))
    assert world.account() == {"GPU-n-0": CARD}


# --- GPUs ahead of demand ---------------------------------------------------------------------------------


@pytest.fixture
def spare(world: World) -> World:
    """One idle GPU for each node."""
    world.process.reconciler._spares._number = 1
    return world


async def test_so_many_gpus_are_open_ahead_of_demand(spare: World) -> None:
    await spare.pass_by(150)
    assert len(spare.reservation_pods()) == GPUS
    assert spare.kinds() == []
    pods = [await spare.pod(share(f"p{index}", CARD)) for index in range(3)]
    for pod in pods[:2]:
        await spare.bind(pod)
        await spare.pass_by(5)
    assert len(spare.gpus("n")) == 2, "none is left to open"
    await spare.delete(pods[0])
    await spare.delete(pods[1])
    await spare.pass_by(70)
    assert (len(spare.gpus("n")), len(spare.gpus("m"))) == (1, 1)


async def test_none_is_opened_or_kept_while_whole_gpus_are_short(spare: World) -> None:
    await spare.pass_by(0)
    whole = await spare.pod(make_pod("w").gpus(2))
    spare.process.waiting.append(whole)
    await spare.pass_by(0)
    assert len(spare.reservation_pods()) == 1
    node = "n" if not spare.gpus("n") else "m"
    assert await spare.error(whole, node) == ""
    spare.process.waiting.clear()
    await spare.pass_by(30)
    assert spare.gpus(node) == {}, "there is no room for one"


async def test_none_is_opened_on_a_node_that_gives_out_nothing(spare: World) -> None:
    await lose(spare, "gone")
    spare.cluster.devices = lambda node: [f"GPU-{node}-{index}" for index in (1, 2)]  # type: ignore[method-assign]
    spare.cluster.fate = "refused"
    await spare.pass_by(5)
    assert spare.process.notices
    opened = spare.api.calls.count("create_pod")
    await spare.pass_by(4, step=1.0)
    assert spare.api.calls.count("create_pod") == opened


# --- reservation pods that are of no use ------------------------------------------------------------------


async def test_one_that_never_reports_is_closed_and_the_node_left_alone(world: World) -> None:
    world.cluster.fate = "silent"
    pod = await world.pod(share())
    assert "in time" in await world.error(pod)
    assert "in time" in await world.error(pod), "it waits for the same one"
    assert len(world.reservation_pods()) == 1
    await world.pass_by(115)
    assert len(world.reservation_pods()) == 1
    await world.pass_by(10)
    assert world.reservation_pods() == []
    assert world.kinds() == ["ReservationFailed"]
    assert await world.error(pod) == REASON_TEXT["ReservationFailed"]
    assert world.process.decisions.filter(pod, ["n", "m"]).nodes == ["m"]


async def test_one_that_the_kubelet_refuses(world: World) -> None:
    world.cluster.fate = "refused"
    pod = await world.pod(share())
    assert "has ended" in await world.error(pod)
    assert await world.error(pod) == REASON_TEXT["ReservationFailed"]
    await world.pass_by(0)
    assert world.reservation_pods() == []
    [notice] = world.process.notices
    assert "UnexpectedAdmissionError" in notice.text
    assert await world.error(await world.pod(make_pod("w").gpus(1))) == "", "whole GPUs are none of its business"


async def test_one_that_reports_while_it_is_closed_for_not_reporting(world: World) -> None:
    """Between our look at it and its deletion it reports, and another extender puts a share on it."""
    world.cluster.fate = "silent"
    pod = await world.pod(share())
    await world.error(pod)
    [silent] = world.reservations()
    world.cluster.fate = "report"
    other = Process(world.cluster)

    async def report_and_bind() -> None:
        await world.cluster.annotate(
            silent,
            {names.CLOSED_BECAUSE: None, names.DEVICE: "GPU-n-0", names.DEVICE_MEMORY_MIB: str(CARD)},
        )
        assert await other.bind(pod, "n") is None

    world.api.script["delete_pod", 1, "before"] = report_and_bind
    await world.pass_by(120)
    assert violations(world.cluster, CARD, GPUS) == []
    assert list(world.account().values()) == [400]


async def test_one_that_reports_while_others_are_closed_is_left_alone() -> None:
    """It is silent as the pass begins; by its turn it has told its device."""
    world = World(GpuCluster(4))
    world.cluster.fate = "silent"
    for _ in range(3):
        await world.process.reservations.search("n", "x")
    *_, late = [reservation.id for reservation in world.ledger.reservations("n")]
    await world.pass_by(115)
    world.process.now += 10

    async def report() -> None:
        told: dict[str, str | None] = {names.DEVICE: world.cluster.held[late], names.DEVICE_MEMORY_MIB: str(CARD)}
        await world.cluster.annotate(next(p for p in world.reservations() if p["metadata"]["name"] == late), told)

    world.api.script["patch_pod", world.api.calls.count("patch_pod") + 1, "before"] = report
    await world.process.reconciler.once()
    assert world.kinds() == ["ReservationFailed"] * 2
    assert [r.id for r in world.ledger.reservations("n") if not r.closing] == [late]


async def test_one_that_was_never_placed_counts_and_goes_too(world: World) -> None:
    """kube-scheduler has found no GPU for it; it would take the next one that is free."""
    world.cluster.fate = "pending"
    pod = await world.pod(share())
    assert "in time" in await world.error(pod)
    assert "in time" in await world.error(pod)
    assert len(world.reservation_pods()) == 1, "a later bind waits for the same one"
    await world.delete(pod)
    await world.pass_by(125)
    assert world.reservation_pods() == []
    assert world.gpus() == {}


@pytest.mark.parametrize(("tried", "seconds"), [(True, 20), (False, 120)], ids=["unschedulable", "nobody tries it"])
@pytest.mark.parametrize("waits", [True, False], ids=["its pod waits", "its pod is gone"])
async def test_one_whose_node_is_gone_goes_as_soon(world: World, waits: bool, tried: bool, seconds: int) -> None:
    """Where it has no node yet no other controller ends it, and its GPU will never be."""
    world.cluster.fate = "pending"
    pod = await world.pod(share())
    assert "in time" in await world.error(pod)
    [made] = world.reservations()
    world.cluster.remove("n")
    if tried:
        await unschedulable(world, made)
    if not waits:
        await world.delete(pod)
    await world.pass_by(seconds - 5)
    assert len(world.reservation_pods()) == 1, "its node may come back"
    await world.pass_by(10)
    assert world.reservation_pods() == []
    assert await world.error(pod) == (
        "the node is not known to the ledger" if waits else "pod default/p does not exist"
    )


async def test_one_that_is_created_after_its_node_has_gone(world: World) -> None:
    """The request was on its way; its opener has died, or knows nothing of its end."""
    world.cluster.fate = "pending"
    world.api.faults["create_pod", 1] = "late-killed"
    pod = await world.pod(share())
    assert await world.error(pod) == "killed"
    late = world.api
    world.cluster.remove("n")
    world.restart()
    await world.delete(pod)
    await late.land_late_requests()
    assert len(world.reservation_pods()) == 1
    await world.pass_by(125)
    assert world.reservation_pods() == []


async def surplus(world: World, pod: Any) -> Any:
    """The pod's bind opens a GPU for which kube-scheduler finds no device; returns the reservation pod."""
    world.cluster.fate = "pending"
    before = set(world.reservation_pods())
    assert "not reported" in await world.error(pod)
    [made] = [each for each in world.reservations() if each["metadata"]["name"] not in before]
    await unschedulable(world, made)
    world.cluster.fate = "report"
    return made


async def unschedulable(world: World, pod: Any, reason: str | None = "Unschedulable") -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason}
    where = pod["metadata"]["namespace"], pod["metadata"]["name"]
    await world.cluster.patch_pod(*where, {"status": {"conditions": [condition]}})


async def test_two_schedulers_open_the_last_card_and_the_surplus_goes_soon(world: World) -> None:
    first, second = [await world.pod(share(name)) for name in "ab"]
    await world.bind(await world.pod(share("other", CARD)))
    other = Process(world.cluster)

    async def other_is_faster() -> None:
        assert await other.bind(second, "n") is None

    world.api.script["create_pod", 2, "before"] = other_is_faster
    assert "not reported" in await world.error(first)
    assert len(world.reservation_pods()) == 3, "of two cards"
    [made] = [pod for pod in world.reservations() if not pod["spec"].get("nodeName")]
    await unschedulable(world, made)
    await world.bind(first)
    await world.pass_by(15)
    assert len(world.reservation_pods()) == 3, "its opener may wait for it that long"
    await world.pass_by(10)
    assert len(world.reservation_pods()) == 2
    assert sorted(world.account().values()) == [800, CARD]
    assert "ReservationFailed" not in world.kinds(), "nobody misses it"


async def test_whoever_waits_for_a_surplus_card_is_told_and_the_node_left_alone(world: World) -> None:
    pod = await world.pod(share())
    await surplus(world, pod)
    for _ in range(4):
        # kube-scheduler keeps trying: the share is on that card nearly all the time.
        bind = asyncio.ensure_future(world.error(pod))
        await asyncio.sleep(1)
        await world.pass_by(5)
        assert "not reported" in await bind or not world.reservation_pods()
    await world.pass_by(0)
    assert world.reservation_pods() == []
    assert world.kinds() == ["ReservationFailed"]
    assert await world.error(pod) == REASON_TEXT["ReservationFailed"]
    await asyncio.sleep(10)
    assert await world.error(pod) == ""


async def test_one_that_finds_a_device_after_all_stays(world: World) -> None:
    pod = await world.pod(share())
    made = await surplus(world, pod)
    await world.pass_by(15)
    await unschedulable(world, made, reason=None)
    await world.pass_by(60)
    assert world.reservation_pods() == [made["metadata"]["name"]]


async def test_one_that_somebody_deletes_closes_when_it_is_empty(world: World) -> None:
    pod = await world.pod(share())
    await world.bind(pod)
    [reservation] = world.reservations()
    await world.cluster.ask_to_go(reservation)
    await world.pass_by(70)
    assert len(world.reservation_pods()) == 1
    assert list(world.gpus().values()) == ["closing"]
    assert await world.error(await world.pod(share("q"))) == ""
    assert len(world.reservation_pods()) == 2, "it takes no new share"
    await world.delete(pod)
    await world.pass_by(0)
    assert [pod["metadata"]["name"] for pod in world.reservations()] != [reservation["metadata"]["name"]]
    assert len(world.reservation_pods()) == 1


async def test_one_that_nothing_knows_of(world: World) -> None:
    """Its opener has died right after it was created."""
    world.api.faults["create_pod", 1] = "killed-after"
    pod = await world.pod(share())
    assert await world.error(pod) == "killed"
    world.restart()
    await world.pass_by(65)
    assert world.reservation_pods() == []


async def test_an_id_leaves_the_record_though_its_reservation_went_while_nobody_watched(world: World) -> None:
    pod = await world.pod(share())
    await world.bind(pod)
    await world.delete(pod)
    [reservation] = world.reservations()
    world.process.die()
    await world.delete(reservation)
    world.restart()
    assert world.gpus() == {"GPU-n-0": "ready"}, "absence from a list proves nothing"
    await world.pass_by(60)
    assert world.gpus() == {}
    assert list((await world.record()).opened()) == []


async def test_a_failing_node_does_not_stop_the_others(world: World) -> None:
    for node in "nm":
        pod = await world.pod(share(node))
        await world.bind(pod, node)
        await world.delete(pod)
    found = await world.cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name("n"))
    await world.cluster.put_config_map({**found, "data": {**found["data"], "record": "{"}})
    await world.pass_by(65)
    assert world.gpus("m") == {}
    assert len(world.reservation_pods()) == 1


# --- lost devices -----------------------------------------------------------------------------------------


async def lose(world: World, how: str) -> Any:
    """A share whose reservation holds its device no longer."""
    pod = await world.pod(share())
    await world.bind(pod)
    [reservation] = world.reservations()
    if how == "gone":
        await world.delete(reservation)
    elif how == "gone unseen":
        world.process.die()
        await world.delete(reservation)
        world.restart()
    elif how == "ended":
        await world.cluster.end(reservation)
    elif how == "other device":
        world.cluster.held[reservation["metadata"]["name"]] = "GPU-n-2"
        await world.cluster.annotate(reservation, {names.DEVICE_HEALTH: "OtherDevice: reported GPU-n-0"})
    else:
        world.cluster.reboot("n", "boot-2")
    return pod


WAYS = ["gone", "gone unseen", "ended", "other device", "rebooted"]


@pytest.mark.parametrize("how", WAYS)
async def test_a_lost_device_closes_its_node_at_once(world: World, how: str) -> None:
    await lose(world, how)
    if how == "gone unseen":
        await world.process.reconciler._repair._prove_gone("n")
    assert world.gpus() == {"GPU-n-0": "lost"}
    for waiting in (make_pod("w").gpus(1), share("q"), make_pod("c")):
        pod = await world.pod(waiting)
        assert world.process.decisions.filter(pod, ["n", "m"]).nodes == ["m"]
        assert await world.error(pod) == REASON_TEXT["ReservationLost"]


async def test_a_closed_node_takes_the_reservation_pods_of_its_repair_and_what_it_needs_to_run(world: World) -> None:
    """Other pods wait until it is open: the room that they would take may be the repair's."""
    await lose(world, "gone")
    cpu = await world.pod(make_pod("c"))
    world.cluster.fate = "pending"
    await world.pass_by(0)
    [searching] = world.reservations()
    assert not searching["spec"].get("nodeName")
    plugin = await world.pod(make_pod("device-plugin").spec(priorityClassName="system-node-critical"))
    for pod in (searching, plugin):
        assert world.process.decisions.filter(pod, ["n"]).nodes == ["n"]
        assert await world.error(pod) == ""
        assert (await world.stored(pod))["spec"]["nodeName"] == "n"
    assert await world.error(cpu) == REASON_TEXT["ReservationLost"], "it is not repaired yet"
    boot = str(world.cluster.nodes["n"]["status"]["nodeInfo"]["bootID"])
    found = {names.DEVICE: "GPU-n-0", names.DEVICE_MEMORY_MIB: str(CARD), names.BOOT_ID: boot}
    await world.cluster.annotate(searching, {**found})
    await world.pass_by(5)
    assert world.process.decisions.filter(cpu, ["n"]).nodes == ["n"]
    assert await world.error(cpu) == ""


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("first", ["GPU-n-0", "GPU-n-1"])
async def test_a_lost_device_is_found_again(how: str, first: str) -> None:
    """Whichever device the plugin gives out first; user pods run on."""
    world = World(GpuCluster(4))
    pod = await lose(world, how)
    world.cluster.order["n"] = [first, "GPU-n-3"]
    await world.pass_by(150)
    assert world.gpus() == {"GPU-n-0": "ready"}, "and the others are on the market again"
    assert [entry.pod for entry in await world.entries()] == ["default/p"]
    assert (await world.stored(pod))["metadata"]["annotations"][names.VISIBLE_DEVICES] == "GPU-n-0"
    assert world.kinds()[0] == "GpuLost"
    assert "GpuRepaired" in world.kinds()
    assert world.kinds().count("NodeReopened") == 1
    assert await world.error(await world.pod(share("q"))) == ""
    assert list(world.account().values()) == [800]
    assert violations(world.cluster, CARD, 4) == []
    world.ledger.check()


async def test_a_record_that_says_lost_closes_the_node(world: World) -> None:
    """Another extender has seen what this one has not."""
    await world.bind(await world.pod(share()))
    lost = (await world.record()).losing(world.reservation_pods()[0])
    assert not isinstance(lost, str)
    found = await world.cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name("n"))
    await world.cluster.put_config_map({**found, "data": {**found["data"], "record": lost.dump()}})
    assert await world.error(await world.pod(make_pod("w").gpus(1))) == REASON_TEXT["ReservationLost"]
    await world.pass_by(0)
    assert await world.error(await world.pod(make_pod("v").gpus(1))) == "", "but its reservation holds the device"


async def test_a_device_that_is_not_there_keeps_the_node_closed(world: World) -> None:
    pod = await lose(world, "gone")
    world.cluster.devices = lambda node: [f"GPU-{node}-{index}" for index in (1, 2)]  # type: ignore[method-assign]
    await world.pass_by(200)
    assert world.kinds().count("GpuNotFound") == 1
    assert len(world.reservation_pods()) == GPUS, "what was tried is held"
    assert world.api.calls.count("create_pod") == 1 + GPUS
    assert await world.error(await world.pod(make_pod("w").gpus(1))) == REASON_TEXT["ReservationLost"]
    assert "NodeReopened" not in world.kinds()
    await world.delete(pod)
    await world.pass_by(65)
    assert world.kinds().count("NodeReopened") == 1
    assert world.gpus() == {}
    assert list((await world.record()).opened()) == []
    assert await world.error(await world.pod(make_pod("v").gpus(GPUS))) == ""


async def test_the_same_reservation_that_comes_back_after_a_reboot(world: World) -> None:
    await lose(world, "rebooted")
    [reservation] = world.reservations()
    await world.pass_by(30)
    assert len(world.reservation_pods()) == 1, "it gets time to start again"
    await world.cluster.annotate(reservation, {names.BOOT_ID: "boot-2"})
    await world.pass_by(0)
    assert world.gpus() == {"GPU-n-0": "ready"}
    assert [state for _, state in (await world.record()).opened()] == ["open"]


async def test_a_device_that_a_whole_gpu_pod_has_got_meanwhile(world: World) -> None:
    """Nobody may end that pod; when it ends by itself, the device is found."""
    pod = await lose(world, "gone")
    whole = make_pod("w").gpus(1).on_node("n").build()
    await world.cluster.create_pod(whole)
    world.cluster.order["n"] = ["GPU-n-1"]
    await world.pass_by(60)
    assert "GpuNotFound" in world.kinds()
    await world.delete(whole)
    await world.pass_by(60)
    assert "GpuRepaired" in world.kinds()
    assert list(world.account()) == ["GPU-n-0"]
    assert (await world.stored(pod))["spec"]["nodeName"] == "n"


async def test_a_reservation_that_never_starts_again_after_a_reboot_is_in_the_way_of_no_search() -> None:
    """kube-scheduler counts it: on a full node nothing could be tried beside it."""
    world = World(GpuCluster(1))
    await lose(world, "rebooted")
    await world.pass_by(180)
    assert world.gpus() == {"GPU-n-0": "ready"}
    assert len(world.reservation_pods()) == 1
    assert "GpuRepaired" in world.kinds()


@pytest.mark.parametrize("lost", [1, 2])
async def test_two_reconcilers_at_once_repair_once(lost: int) -> None:
    world = World(GpuCluster(4))
    for index in range(lost):
        await world.bind(await world.pod(share(f"p{index}", 900)))
    for reservation in world.reservations():
        await world.delete(reservation)
    world.cluster.order["n"] = ["GPU-n-3", "GPU-n-1", "GPU-n-0"]
    other = Process(world.cluster)
    for _ in range(30):
        await world.process.reconciler.once()
        await other.reconciler.once()
        world.process.now += 5
        other.now += 5
    assert sorted(world.gpus()) == [f"GPU-n-{index}" for index in range(lost)]
    assert set(world.gpus().values()) == {"ready"}
    assert len(world.reservation_pods()) == lost


@pytest.mark.parametrize("fault", ["refused", "never", "lost", "late", "killed-before", "killed-after", "late-killed"])
@pytest.mark.parametrize("fails_at", range(REPAIR))
async def test_one_fault_at_every_request_of_a_repair(fault: str, fails_at: int) -> None:
    """Whatever happens to one request: no device is given out twice meanwhile, and the device is found in the end."""
    world = World(GpuCluster(3))
    await lose(world, "gone")
    world.cluster.order["n"] = ["GPU-n-2"]
    faulty = Process(world.cluster, fails_at, fault)
    world.process.die()
    for _ in range(6):
        if not await faulty.reconcile():
            break
        faulty.now += 5
    assert fails_at < REPAIR - 1 or faulty.api.was_spared()
    faulty.api.work_again()
    faulty.die()
    world.process = Process(world.cluster)
    world.ledger = world.process.decisions.ledger
    whole = await world.pod(make_pod("w").gpus(2))
    if "lost" in world.gpus().values():
        assert await world.error(whole)
    await faulty.api.land_late_requests()
    await world.pass_by(200)
    assert world.gpus() == {"GPU-n-0": "ready"}
    assert await world.error(whole) == ""
    assert violations(world.cluster, CARD, 3) == []


@pytest.mark.parametrize("fault", ["refused", "never", "lost", "late", "killed-before", "killed-after", "late-killed"])
@pytest.mark.parametrize("fails_at", range(CLEAN_UP))
async def test_one_fault_at_every_request_of_the_clean_up(fault: str, fails_at: int) -> None:
    """An idle GPU, a silent reservation pod and a dead process's entry: a share lands in between, and all else goes."""
    world = World()
    idle = await world.pod(share("idle"))
    await world.bind(idle)
    await world.delete(idle)
    world.api.faults["bind_pod", 2] = "late-killed"
    orphan = await world.pod(share("orphan", CARD))
    assert await world.error(orphan) == "killed"
    dead = world.api
    world.cluster.fate = "silent"
    assert await world.process.reservations.search("m", "silent")
    world.cluster.fate = "report"
    faulty = Process(world.cluster, fails_at, fault)
    for _ in range(30):
        if not await faulty.reconcile():
            break
        faulty.now += 5
    assert fails_at < CLEAN_UP - 1 or faulty.api.was_spared()
    faulty.api.work_again()
    faulty.die()
    successor = Process(world.cluster)
    late = await world.pod(share("late"))
    await successor.bind(late, "n")
    await dead.land_late_requests()
    await faulty.api.land_late_requests()
    assert violations(world.cluster, CARD, GPUS) == []
    for _ in range(30):
        await successor.reconcile()
        successor.now += 5
    assert await successor.bind(late, "n") is None
    assert await successor.bind(orphan, "n") is None
    assert violations(world.cluster, CARD, GPUS) == []
    assert sorted(world.account().values()) == [400, CARD]
