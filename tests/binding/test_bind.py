"""bind against an API that is slow, refuses and fails: nothing is bound twice, and nothing stays behind."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender.binding.records import PAUSE
from extender.core import names
from extender.core.errors import ApiError, Conflict, Refused, Unavailable
from extender.core.placement import REASON_TEXT
from extender.core.record import RECORD_KEY, NodeRecord, record_name
from tests.binding.stage import CARD, GPUS, World
from tests.binding.world import Process, violations
from tests.builders import make_pod
from tests.virtual_time import VirtualTime

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
    world.restart()
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


async def test_a_reservation_pod_is_for_its_openers_scheduler(world: World) -> None:
    """No other is known to run: of the setting's name there may be none."""
    pod = await world.pod(make_pod("p").gpu_memory(400).spec(schedulerName="second-profile"))
    await world.bind(pod)
    [reservation] = world.reservations()
    assert reservation["spec"]["schedulerName"] == "second-profile"


async def test_the_claim_ends_with_the_bind(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.process.decisions.filter(pod, ["n"])
    assert len(world.process.decisions.claims) == 1
    await world.bind(pod)
    assert len(world.process.decisions.claims) == 0


# --- failures ---------------------------------------------------------------------------------------------

FAILURES = [Conflict("409"), Refused("422"), Unavailable("no answer"), ApiError("other")]


STEPS = [
    ("get_pod", 1, 1),
    ("create_pod", 1, 1),
    ("create_pod", 1, 2),
    ("create_pod", 2, 2),
    ("get_config_map", 1, 2),
    ("create_config_map", 1, 2),
    ("bind_pod", 1, 2),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("method", "which", "devices"), STEPS)
async def test_a_failed_call_leaves_nothing_behind(
    world: World, error: Exception, method: str, which: int, devices: int
) -> None:
    before = world.seen()
    pod = await world.pod(make_pod("p").gpu_memory(400).num_devices(devices))
    world.api.fail(method, which, error)
    answer = await world.error(pod)
    if isinstance(error, Conflict) and method in ("create_config_map", "bind_pod"):
        assert answer == "", "a lost race is run again"
        return
    assert answer == expected(error, method)
    assert world.seen() == before
    assert world.reservation_pods() == []
    assert world.ledger.reservations("n") == ()
    assert await world.entries() == []
    assert world.process.binder.oldest_assumed() == 0
    if isinstance(error, Refused) and method in ("create_pod", "bind_pod"):
        assert await world.error(pod) == REASON_TEXT["BindRefused"]
        world.process.now += 11
    assert await world.error(pod) == "", "the next try starts afresh"


def expected(error: Exception, method: str) -> str:
    if method == "create_pod" and isinstance(error, Conflict | Unavailable):
        return "a new shared GPU has not reported its device in time"
    if method == "bind_pod" and not isinstance(error, Refused):
        return "the API did not answer the Binding, and it has not taken effect"
    return str(error)


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
    assert (gpu["state"], gpu["shares"]) == ("closing", []), "the record says so"
    whole = await world.pod(make_pod("w").gpus(2))
    assert "not enough whole GPUs" in await world.error(whole)
    await world.process.reservations.close_idle("n")
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
    ("get_config_map", "before"),
    ("create_config_map", "before"),
    ("create_config_map", "after"),
    ("bind_pod", "before"),
    ("bind_pod", "after"),
]


@pytest.mark.parametrize(("method", "when"), MOMENTS)
async def test_the_pod_is_deleted_meanwhile(world: World, method: str, when: str) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.api.script[method, 1, when] = lambda: world.delete(pod)
    error = await world.error(pod)
    assert bool(error) == ((method, when) != ("bind_pod", "after")), "once bound it was a success"
    await world.process.reservations.close_idle("n")
    assert world.seen()["totals"]["usedMiB"] == 0
    assert world.reservation_pods() == []
    assert world.ledger.reservations("n") == ()


@pytest.mark.parametrize("fate", ["silent", "pending"])
async def test_a_pod_that_ends_while_its_gpus_are_opened_leaves_none(world: World, fate: str) -> None:
    """Neither the bind nor anything of it waits for a timeout, only for its turn to write the record."""
    world.cluster.fate = fate
    pod = await world.pod(make_pod("p").gpu_memory(400).num_devices(2))
    bind = asyncio.ensure_future(world.error(pod))
    await asyncio.sleep(1)
    assert len(world.reservation_pods()) == 2
    began = asyncio.get_running_loop().time()
    await world.delete(pod)
    assert "has ended" in await bind
    assert asyncio.get_running_loop().time() - began <= 2 * PAUSE
    assert world.reservation_pods() == []


async def test_while_a_gpu_is_being_opened_filter_answers_its_opener_with_that_node_only(world: World) -> None:
    """Else kube-scheduler may send the pod elsewhere, and another GPU is opened for it there."""
    pod, twin = [await world.pod(make_pod(name).gpu_memory(400)) for name in ("p", "twin")]
    decisions, nodes = world.process.decisions, ["m", "n"]
    assert decisions.filter(pod, nodes).nodes == ["n", "m"]
    world.cluster.fate = "silent"
    assert "not reported its device in time" in await world.error(pod, "m")
    assert decisions.filter(pod, nodes).nodes == ["m"]
    assert set(decisions.filter(twin, nodes).nodes) == {"m", "n"}, "others are free to go"
    [opening] = world.reservations()
    await world.delete(opening)
    assert decisions.filter(pod, nodes).nodes == ["n", "m"]


async def test_what_was_created_is_known_before_the_watch_shows_it(world: World) -> None:
    """The watch lags while a pod of two GPUs is deleted."""
    world.cluster.fate = "silent"
    pod = await world.pod(make_pod("p").gpu_memory(400).num_devices(2))
    watcher = world.process._watcher

    async def lag() -> None:
        world.cluster.detach(watcher)
        world.api.script["create_pod", 2, "after"] = gone

    async def gone() -> None:
        watcher.pod_gone(await world.stored(pod))

    world.api.script["create_pod", 1, "before"] = lag
    assert "has ended" in await world.error(pod)
    assert world.reservation_pods() == []


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
    await world.process.reservations.close_idle("n")
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
    world.process.now = 3.0
    assert world.process.binder.oldest_assumed() == 3.0
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    assert await world.error(pod) == "", "the second caller gets the answer of the same bind"
    assert world.api.calls.count("bind_pod") == 1
    assert list(world.account().values()) == [400]
    assert world.process.binder.oldest_assumed() == 0


async def test_binds_of_a_burst_share_puts(world: World) -> None:
    """A PUT costs the API server, and every process that watches, as much for one share as for ten."""
    await world.bind(await world.pod(make_pod("first").gpu_memory(100)))
    pods = [await world.pod(make_pod(f"p{i}").gpu_memory(50)) for i in range(10)]
    began, before = asyncio.get_running_loop().time(), world.api.calls.count("put_config_map")
    binds = [asyncio.create_task(world.bind(pod)) for pod in pods[:2]]
    for pod in pods[2:]:
        await asyncio.sleep(PAUSE / 10)
        binds.append(asyncio.create_task(world.bind(pod)))
    await asyncio.gather(*binds)
    assert world.api.calls.count("put_config_map") - before == 2
    assert asyncio.get_running_loop().time() - began <= PAUSE


async def test_a_pod_asked_about_while_another_is_being_bound_makes_a_burst(world: World) -> None:
    """kube-scheduler places the next pod while a Binding is on its way; its own bind comes a moment after that."""
    await world.bind(await world.pod(make_pod("first").gpu_memory(100)))
    pods = [await world.pod(make_pod(f"p{number}").gpu_memory(50)) for number in range(6)]
    before = world.api.calls.count("put_config_map")
    bind = asyncio.create_task(world.bind(pods[0]))
    await asyncio.sleep(0)
    world.process.binder.asked()
    await bind
    binds = []
    for pod in pods[1:]:
        binds.append(asyncio.create_task(world.bind(pod)))
        await asyncio.sleep(PAUSE / 10)
    await asyncio.gather(*binds)
    assert world.api.calls.count("put_config_map") - before == 2


async def test_who_binds_one_pod_after_the_other_does_not_wait(world: World) -> None:
    began = asyncio.get_running_loop().time()
    for number in range(5):
        world.process.binder.asked()
        await world.bind(await world.pod(make_pod(f"p{number}").gpu_memory(50)))
    assert asyncio.get_running_loop().time() - began < PAUSE


async def test_a_bind_that_fails_with_nobody_waiting(world: World) -> None:
    """No "exception was never retrieved", and nothing stays behind."""
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.api.fail("bind_pod", 1, Refused("422"))
    caller = asyncio.create_task(world.bind(pod))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.sleep(1)
    assert world.seen()["totals"]["usedMiB"] == 0
    assert world.reservation_pods() == []


# --- answers that do not come -----------------------------------------------------------------------------

LOST = [("create_pod", 1), ("create_config_map", 1), ("bind_pod", 1)]


@pytest.mark.parametrize("call", LOST, ids=lambda call: str(call[0]))
async def test_the_answer_is_lost_but_the_request_has_landed(world: World, call: tuple[str, int]) -> None:
    world.api.faults[call] = "lost"
    pod = await world.pod(make_pod("p").gpu_memory(400))
    assert await world.error(pod) == ""
    assert world.api.calls.count(call[0]) == 1
    assert list(world.account().values()) == [400]
    assert world.ledger.state("n").gpus[0].used_mib == 400  # type: ignore[union-attr]


async def test_a_put_that_the_client_repeats_by_itself_is_our_own(world: World) -> None:
    """The first landed, the repetition conflicts with it: no other try stands there, so no fence is due."""
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.api.fail("create_config_map", 1, Conflict("409"), when="after")
    assert await world.error(pod) == ""
    assert "patch_pod" not in world.api.calls


@pytest.mark.parametrize("fence", ["refused", "never", "late", "lost"])
async def test_a_fence_that_fails_too_leaves_the_room_held(world: World, fence: str) -> None:
    """A refused fence says nothing about the Binding, whoever refused it."""
    world.api.faults = {("bind_pod", 1): "late", ("patch_pod", 1): fence}
    pod = await world.pod(make_pod("p").gpu_memory(600).num_devices(2))
    assert "nobody knows" in await world.error(pod)
    world.process.now = 5.0
    assert world.process.binder.oldest_assumed() == 5.0
    other = await world.pod(make_pod("other").gpu_memory(600))
    assert await world.error(other), "its room is held"
    await world.api.land_late_requests()
    await world.error(pod)  # "it has not taken effect", where a fence came through meanwhile
    assert await world.error(pod) == "", "landed, or tried again"
    assert world.process.binder.oldest_assumed() == 0
    assert sorted(world.account().values()) == [600, 600]


async def test_the_fence_kills_a_binding_that_is_still_on_its_way(world: World) -> None:
    world.api.faults[("bind_pod", 1)] = "late"
    pod = await world.pod(make_pod("p").gpu_memory(600))
    assert "it has not taken effect" in await world.error(pod)
    await world.api.land_late_requests()
    assert "nodeName" not in (await world.stored(pod))["spec"]
    assert await world.entries() == []


async def test_an_entry_that_a_dead_process_left_is_fenced_first(world: World) -> None:
    """Its Binding may still land: the successor's fence comes before its own entry."""
    world.api.faults[("bind_pod", 1)] = "late-killed"
    pod = await world.pod(make_pod("p").gpu_memory(600))
    assert await world.error(pod) == "killed"
    dead = world.api
    world.restart()
    assert await world.error(pod, "m") == ""
    await dead.land_late_requests()
    assert (await world.stored(pod))["spec"]["nodeName"] == "m"


async def test_somebody_else_binds_a_share_pod_meanwhile(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    target = {"metadata": {"namespace": "default", "name": "p"}, "target": {"name": "m"}}
    world.api.script["bind_pod", 1, "before"] = lambda: world.cluster.bind_pod(target)
    assert await world.error(pod) == "pod default/p is already bound to node m"
    assert await world.entries() == []
    assert world.reservation_pods() == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_watch_shows_the_pod_bound_by_somebody_while_its_entry_is_written(world: World, when: str) -> None:
    """No word of our own account in it: kube-scheduler shows the sentence to the user."""
    pod = await world.pod(make_pod("p").gpu_memory(400))

    async def somebody_binds() -> None:
        name = {"name": "p", "namespace": "default"}
        await world.cluster.bind_pod({"metadata": name, "target": {"name": "m"}})

    world.api.script["create_config_map", 1, when] = somebody_binds
    assert await world.error(pod) == "pod default/p is already bound to node m"
    assert await world.entries() == []
    assert world.reservation_pods() == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_pod_ends_while_its_entry_is_written(world: World, when: str) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    world.api.script["create_config_map", 1, when] = lambda: world.delete(pod)
    assert "has ended" in await world.error(pod)
    assert await world.entries() == []


async def test_a_closing_gpu_leaves_the_record_with_its_pod(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    await world.bind(pod)
    await world.delete(pod)
    await world.process.reservations.close_idle("n")
    found = await world.cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name("n"))
    assert NodeRecord.parse(found["data"][RECORD_KEY]) == NodeRecord.empty()


async def test_an_unreadable_record_takes_no_share_and_stays_as_it_is(world: World) -> None:
    first = await world.pod(make_pod("first").gpu_memory(400))
    await world.bind(first)
    found = await world.cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name("n"))
    spoilt = {**found, "data": {**found["data"], RECORD_KEY: "{"}}
    await world.cluster.put_config_map(spoilt)
    assert await world.error(await world.pod(make_pod("p").gpu_memory(400)))
    await world.process.reservations.close_idle("n")
    found = await world.cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name("n"))
    assert found["data"][RECORD_KEY] == "{"


async def test_two_processes_never_use_one_name(world: World) -> None:
    """One that starts anew would otherwise open a GPU under the name of one that has been closed."""
    first = world.process.reservations.new_ids("n", "p", 1)
    world.restart()
    assert first != world.process.reservations.new_ids("n", "p", 1)


async def test_a_fence_comes_before_the_entry_that_takes_another_ones_place(world: World) -> None:
    """Else the dead process's Binding lands after its entry has gone."""
    world.api.faults[("bind_pod", 1)] = "late-killed"
    pod = await world.pod(make_pod("p").gpu_memory(600))
    assert await world.error(pod) == "killed"
    dead = world.api
    world.restart()
    world.api.script["bind_pod", 1, "before"] = dead.land_late_requests
    assert await world.error(pod) == ""
    [entry] = await world.entries()
    assert (await world.stored(pod))["metadata"]["annotations"][names.TRY] == entry.attempt


async def test_an_entry_of_a_pod_that_another_try_has_bound_leaves(world: World) -> None:
    world.api.faults[("bind_pod", 1)] = "late-killed"
    pod = await world.pod(make_pod("p").gpu_memory(600))
    assert await world.error(pod) == "killed"
    world.restart()
    assert await world.error(pod, "m") == ""
    other = await world.pod(make_pod("other").gpu_memory(100))
    await world.bind(other)
    assert [entry.pod for entry in await world.entries("n")] == ["default/other"]


async def test_a_lost_record_lets_no_late_binding_land(world: World) -> None:
    """Its entry was in the record that is lost: what it would take looks free."""
    await world.bind(await world.pod(make_pod("first").gpu_memory(300)))
    world.api.faults[("bind_pod", 2)] = "late-killed"
    pod = await world.pod(make_pod("p").gpu_memory(600))
    assert await world.error(pod) == "killed"
    dead = world.api
    world.cluster._config_maps.clear()
    world.restart()
    await world.bind(await world.pod(make_pod("other").gpu_memory(600)))
    await dead.land_late_requests()
    assert "nodeName" not in (await world.stored(pod))["spec"]
    assert sorted(entry.pod for entry in await world.entries()) == ["default/first", "default/other"]


async def test_a_bound_pod_that_the_record_misses_keeps_its_room(world: World) -> None:
    """It was bound after we chose, and somebody has taken its entry out of the record."""
    await world.bind(await world.pod(make_pod("first").gpu_memory(200)))
    late = await world.pod(make_pod("late").gpu_memory(500))
    second = await world.pod(make_pod("second").gpu_memory(500))

    async def others_act() -> None:
        await Process(world.cluster).bind(late, "n")
        name = names.RESERVATION_NAMESPACE, record_name("n")
        found = await world.cluster.get_config_map(*name)
        record = NodeRecord.parse(found["data"][RECORD_KEY])
        tries = [(e.pod_uid, e.attempt) for e in record.entries() if e.pod_uid == late["metadata"]["uid"]]
        assert tries
        await world.cluster.put_config_map(
            {**found, "data": {**found["data"], RECORD_KEY: record.without(tries).dump()}}
        )

    world.api.script["put_config_map", 1, "before"] = others_act
    assert await world.error(second) == "the shared GPU no longer has room"


async def test_a_reservation_pod_that_goes_before_the_entry_is_written(world: World) -> None:
    async def evict() -> None:
        await world.cluster.delete_pod(names.RESERVATION_NAMESPACE, world.reservation_pods()[0], "")

    world.api.script["get_config_map", 1, "before"] = evict
    assert await world.error(await world.pod(make_pod("p").gpu_memory(400)))
    assert world.account() == {}
    assert await world.entries() == []


async def test_a_closed_gpu_leaves_the_record_with_the_next_write(world: World) -> None:
    pod = await world.pod(make_pod("p").gpu_memory(400))
    await world.bind(pod)
    await world.delete(pod)
    puts = world.api.calls.count("put_config_map")
    world.api.faults["put_config_map", puts + 2] = "never"
    await world.process.reservations.close_idle("n")
    assert world.reservation_pods() == []
    world.api.work_again()
    await world.bind(await world.pod(make_pod("q").gpu_memory(400)))
    found = await world.cluster.get_config_map(names.RESERVATION_NAMESPACE, record_name("n"))
    assert [state for _, state in NodeRecord.parse(found["data"][RECORD_KEY]).opened()] == ["open"]


async def test_a_uid_that_a_person_gives_again_is_alive(world: World) -> None:
    first = await world.pod(make_pod("p").uid("u").gpu_memory(400))
    await world.bind(first)
    await world.delete(first)
    await world.bind(await world.pod(make_pod("p").uid("u").gpu_memory(400)))
    await world.bind(await world.pod(make_pod("q").gpu_memory(400)))
    assert sorted(entry.pod for entry in await world.entries()) == ["default/p", "default/q"]


# --- many at once, and any failure ------------------------------------------------------------------------

errors = st.sampled_from(FAILURES)
methods = ["create_pod", "bind_pod", "delete_pod", "patch_pod", "get_config_map", "put_config_map"]
failing = st.dictionaries(st.tuples(st.sampled_from(methods), st.integers(1, 6)), errors, max_size=4)
shares = st.lists(st.tuples(st.integers(1, CARD), st.integers(1, 2), st.sampled_from("nm")), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(shares=shares, failing=failing, deleted=st.sets(st.integers(0, 7)))
def test_many_binds_at_once(
    shares: list[tuple[int, int, str]], failing: dict[tuple[str, int], Exception], deleted: set[int]
) -> None:
    """Whatever fails and whoever is deleted meanwhile: no GPU is given out twice, and the books are the pods'."""
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        runner.run(many(shares, failing, deleted))


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
    assert violations(world.cluster, CARD, GPUS) == []
    world.api.script.clear()
    await world.process.binder.settle()
    await world.pass_by(90)
    assert {gpu["uuid"]: gpu["usedMiB"] for node in world.seen()["nodes"] for gpu in node["sharedGpus"]} == (
        world.account()
    )
    assert len(world.reservation_pods()) == len(world.account())


async def test_the_binding_says_what_each_container_is_held_to() -> None:
    """A fraction becomes MiB with the Binding, and so do the limits of every enforcement mechanism."""
    world = World()
    pod = await world.pod(make_pod("a").gpu_fraction("0.25").num_devices(2))
    await world.bind(pod)
    annotations = (await world.stored(pod))["metadata"]["annotations"]
    devices = annotations[names.VISIBLE_DEVICES].split(",")
    assert annotations[f"{names.MPS_MEMORY_LIMIT}.0"] == ",".join(f"{device}=250M" for device in devices)
    assert annotations[f"{names.MPS_THREADS}.0"] == "25"
    assert annotations[f"{names.HAMI_MEMORY_LIMIT}.0"] == "250m"
    assert annotations["nvidia.com/container.main.gpu-memory.limit"] == "250Mi"
    # And it is read back as it was asked for: the other dialect in it is ours.
    world.restart()
    assert await world.error(await world.pod(make_pod("b").gpu_fraction("0.75"))) == ""
