"""Of several candidates one works; see docs/operations.md."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random
from typing import Final

import pytest

from extender.core.errors import Conflict, NotFound, Refused, Unavailable
from extender.elector import Terms
from tests.background.leases import Stage

FAULTS: Final = ("lost", "never", "late", "twice", None)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    for name in list(stage.electors):
        await stage.stop(name)
    assert stage.working == []
    assert stage.worst <= 1


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_one_works_and_the_other_waits(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    stage.start("b")
    await asyncio.sleep(100)
    assert stage.working == stage.leaders == ["a"]
    assert len(stage.begun) == 1


async def test_a_clean_shutdown_hands_over_at_once(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    stage.start("b")
    await asyncio.sleep(20)
    stopped = now()
    await stage.stop("a")
    assert stage.leases.get()["spec"]["holderIdentity"] == ""
    await asyncio.sleep(3)
    assert stage.working == ["b"]
    assert stage.begun[-1][0] - stopped < 2.5
    assert stage.leases.get()["spec"]["leaseTransitions"] == 1


async def test_the_lease_is_given_up_only_when_the_work_has_ended(stage: Stage) -> None:
    ended: list[float] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(60)  # Longer than the Lease: it is renewed meanwhile.
            ended.append(now())

    stage.start("a", slow)
    await asyncio.sleep(1)
    stage.start("b")
    await stage.stop("a")
    assert stage.working == []
    await asyncio.sleep(3)
    assert stage.begun[0][0] > ended[0]


async def test_a_silent_holder_is_followed_after_the_lease_has_run_out(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    stage.start("b")
    await asyncio.sleep(30)
    stage.cut("a", "never")
    cut = now()
    await asyncio.sleep(30)
    assert stage.working == stage.leaders == ["b"]
    assert 13 < stage.begun[-1][0] - cut < 18
    stage.cut("a", None)
    await asyncio.sleep(30)
    assert stage.working == ["b"]


async def test_a_holder_that_cannot_renew_stops_before_others_may_start(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(20)
    stage.cut("a", "never")
    await asyncio.sleep(11)
    assert stage.working == stage.leaders == []


async def test_the_deadline_ends_the_lead_between_two_tries() -> None:
    stage = Stage(terms=Terms(duration=15, renew_deadline=10, retry=6))
    stage.start("a")
    await asyncio.sleep(1)

    def refuse(_method: str) -> str | None:
        raise Unavailable("connection refused")

    stage.lines["a"].fault = refuse
    await asyncio.sleep(9.5)
    assert stage.working == []
    await stage.stop("a")


async def test_a_renewal_that_lands_while_the_lease_is_given_up(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(10)
    line = stage.lines["a"]
    seen: list[str] = []

    def fault(method: str) -> str | None:
        seen.append(method)
        if seen == ["get", "put"]:
            stage.leases.put(stage.leases.get())
        return None

    line.fault = fault
    await stage.stop("a")
    assert seen == ["get", "put", "get", "put"]
    assert stage.leases.get()["spec"]["holderIdentity"] == ""


async def test_everybody_is_cut_off_and_comes_back(stage: Stage) -> None:
    for name in ("a", "b"):
        stage.start(name)
        await asyncio.sleep(1)
    for name in ("a", "b"):
        stage.cut(name, "never")
    await asyncio.sleep(60)
    assert stage.working == []
    for name in ("a", "b"):
        stage.cut(name, None)
    await asyncio.sleep(20)
    assert len(stage.working) == 1


@pytest.mark.parametrize("fault", ["lost", "twice"])
async def test_a_write_that_landed_though_its_answer_says_otherwise(stage: Stage, fault: str) -> None:
    stage.start("a")
    stage.lines["a"].fault = lambda method: fault if method != "get" else None
    await asyncio.sleep(100)
    if fault == "twice":  # The Conflict was our own doing.
        assert [who for _, who in stage.begun] == ["a"]
        assert stage.begun[0][0] < 0.1
        assert stage.leaders == ["a"]
    stage.cut("a", None)
    await asyncio.sleep(5)
    assert stage.working == ["a"]


async def test_a_renewal_that_lands_late_keeps_nobody_in_the_lead(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    stage.start("b")
    await asyncio.sleep(10)
    stage.lines["a"].fault = lambda method: "late" if method == "put" else None
    await asyncio.sleep(12)
    assert stage.working == []
    stage.lines["a"].late.pop(0)()
    stage.cut("a", "never")
    landed = now()
    await asyncio.sleep(30)
    assert stage.working == ["b"]
    assert stage.begun[-1][0] - landed > 14


async def test_a_process_that_was_stopped_knows_at_once_that_it_leads_no_more(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    assert stage.leaders == ["a"]
    loop = asyncio.get_running_loop()
    loop.now += 11  # type: ignore[attr-defined] # SIGSTOP: time passes and nothing of it runs
    assert stage.leaders == []
    assert stage.working == ["a"]
    stage.cut("a", "never")
    await asyncio.sleep(1)
    assert stage.working == []


async def test_a_deleted_lease_is_no_sign_that_its_holder_has_gone(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    stage.start("b")
    await asyncio.sleep(10)
    stage.cut("a", "never")
    await asyncio.sleep(0)
    stage.leases.lease = None
    await asyncio.sleep(8)
    assert stage.begun == [stage.begun[0]]
    await asyncio.sleep(10)
    assert stage.working == ["b"]


async def test_a_deleted_lease_is_made_again_by_its_holder(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    stage.leases.lease = None
    await asyncio.sleep(20)
    assert stage.working == ["a"]
    assert len(stage.begun) == 1
    assert stage.leases.get()["spec"]["holderIdentity"] == "a"


async def test_a_lead_that_somebody_else_took_is_given_up(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    lease = stage.leases.get()
    stage.leases.put({**lease, "spec": {**lease["spec"], "holderIdentity": "thief", "leaseDurationSeconds": 30}})
    await asyncio.sleep(3)
    assert stage.working == []
    await asyncio.sleep(20)
    assert stage.working == []  # The thief's own 30 seconds count, not ours.
    await asyncio.sleep(15)
    assert stage.working == ["a"]
    assert stage.leases.get()["spec"]["leaseTransitions"] == 1


async def test_what_else_stands_in_the_lease_is_kept(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    lease = stage.leases.get()
    stage.leases.put({**lease, "spec": {**lease["spec"], "strategy": "OldestEmulationVersion"}})
    await asyncio.sleep(10)
    stage.start("b")
    for _ in range(2):
        assert stage.leases.get()["spec"]["strategy"] == "OldestEmulationVersion"
        await stage.stop("a")
        await asyncio.sleep(10)
    assert stage.working == ["b"]


@pytest.mark.parametrize("spec", [{}, None, {"holderIdentity": None}, {"holderIdentity": "", "leaseTransitions": "x"}])
async def test_a_lease_that_nobody_holds_is_taken(stage: Stage, spec: object) -> None:
    stage.leases.lease = {"metadata": {"resourceVersion": "0"}, "spec": spec}
    stage.start("a")
    await asyncio.sleep(1)
    assert stage.working == ["a"]


async def test_an_api_that_refuses_is_asked_again(stage: Stage) -> None:
    stage.start("a")
    refusing = [True]

    def fault(_method: str) -> str | None:
        if refusing[0]:
            raise Refused("403: forbidden")
        return None

    stage.lines["a"].fault = fault
    await asyncio.sleep(60)
    assert stage.working == []
    refusing[0] = False
    await asyncio.sleep(3)
    assert stage.working == ["a"]


async def test_work_that_ends_ends_the_candidacy(stage: Stage) -> None:
    async def done() -> None:
        await asyncio.sleep(5)

    await stage.start("a", done)
    assert now() == pytest.approx(5, abs=0.5)
    assert stage.leases.get()["spec"]["holderIdentity"] == ""


async def test_what_the_work_raises_comes_out_and_the_lease_is_free(stage: Stage) -> None:
    async def broken() -> None:
        await asyncio.sleep(5)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stage.start("a", broken)
    assert stage.leases.get()["spec"]["holderIdentity"] == ""


async def test_a_shutdown_does_not_wait_for_an_api_that_is_silent(stage: Stage) -> None:
    stage.start("a")
    await asyncio.sleep(1)
    stage.cut("a", "never")
    stopped = now()
    await stage.stop("a")
    assert now() - stopped < 3


@pytest.mark.parametrize("terms", [(10, 10, 2), (15, 2, 2), (15, 10, 0)])
def test_terms_that_overlap_are_refused(terms: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="duration > renew_deadline > retry"):
        Terms(*terms)


@pytest.mark.parametrize("seed", range(60))
async def test_never_two_at_work_whatever_fails(seed: int) -> None:
    stage, random = Stage(seed), Random(seed)
    names = ["a", "b", "c"]
    for name in names:
        stage.start(name)
    for _ in range(60):
        await asyncio.sleep(random.expovariate(1 / 4))
        assert len(stage.leaders) <= 1
        name = random.choice(names)
        match random.randrange(5):
            case 0 | 1:
                stage.lines[name].fault = lambda _method: random.choice(FAULTS)
            case 2:
                stage.cut(name, random.choice(["never", "lost", "late", None]))
            case 3:
                for request in stage.lines[name].late:
                    with suppress(Conflict, NotFound):
                        request()
                stage.lines[name].late.clear()
            case 4:
                await stage.stop(name)
                stage.start(name)
    for name in names:
        stage.cut(name, None)
    await asyncio.sleep(40)
    assert len(stage.working) == 1
    for name in names:
        await stage.stop(name)
    assert stage.worst == 1
