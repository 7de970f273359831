"""Learning in another process: the loop goes on, results are swapped in between ticks, failures change nothing."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from extender.core import names
from extender.core.decisions import Decisions, Policy
from extender.core.learned import Learned
from extender.core.nodereader import read_nodes
from extender.core.seen import Seen
from extender.core.strategies import STRATEGIES
from extender.learning import Background
from tests.builders import make_node, make_pod


def decisions_with(background: Background) -> Decisions:
    background.start()
    policy = Policy(strategy=names.ADAPTIVE)
    decisions = Decisions(policy, claim_ttl=1, timer=lambda: 0.0, refresher=background)
    for node in read_nodes([make_node("n0").gpus(4, mib=1000).build()]):
        decisions.ledger.put_node(node)
    return decisions


def ask(decisions: Decisions, index: int) -> list[str]:
    pod = make_pod().uid(f"u{index}").gpu_memory(600).build()
    decisions.claims.end(f"u{index - 1}")
    return decisions.filter(pod, ["n0"]).nodes


async def until(done: Callable[[], bool]) -> None:
    """Give the loop its turn until that holds."""
    async with asyncio.timeout(60):
        while not done():  # noqa: ASYNC110 - decisions know no event
            await asyncio.sleep(0.01)


async def test_what_was_learned_arrives_while_decisions_go_on() -> None:
    background = Background()
    try:
        decisions = decisions_with(background)
        before = decisions._learned
        for index in range(10):
            assert ask(decisions, index) == ["n0"]
        assert decisions._learned is before, "nothing changes within a tick"
        await until(lambda: decisions._learned is not before)
        # Six tenths are asked for: a hole below that is worth nothing.
        assert decisions._learned.by_strategy[names.ADAPTIVE].holes[0][599] == pytest.approx(0)
    finally:
        background.close()


async def test_the_process_may_die() -> None:
    background = Background()
    try:
        decisions = decisions_with(background)
        assert background._pool is not None
        (pid,) = background._pool._processes
        os.kill(pid, signal.SIGKILL)
        before = decisions._learned
        async with asyncio.timeout(60):
            index = 0
            while decisions._learned is before:
                assert ask(decisions, index) == ["n0"]
                index += 1
                await asyncio.sleep(0.01)
    finally:
        background.close()


async def test_of_the_refreshes_that_wait_only_the_latest_runs() -> None:
    background = Background()
    adopted: list[int] = []
    try:
        decisions = decisions_with(background)
        seen: Seen = decisions._seen()
        used = list(STRATEGIES.values())

        def adopt(number: int) -> None:
            adopted.append(number)

        for number in range(5):
            background(seen, used, lambda _learned, number=number: adopt(number))  # type: ignore[misc]
        await until(lambda: len(adopted) >= 2)
        await asyncio.sleep(0.1)
        assert adopted == [0, 4]
    finally:
        background.close()


def test_learned_keeps_what_a_strategy_knew() -> None:
    decisions = Decisions(Policy(), claim_ttl=1, timer=lambda: 0.0)
    first = decisions._learned
    newer = Learned(first.fragmentation, {names.FGD: "new"})
    assert first.updated(newer).by_strategy[names.FGD] == "new"
    assert first.updated(newer).by_strategy[names.ADAPTIVE] is first.by_strategy[names.ADAPTIVE]
