"""Events: what reaches the API, how often, and what never holds anybody up."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from extender.core import notices
from extender.core.errors import Conflict, Refused, Unavailable
from extender.core.notices import About, Notice
from extender.events import MOST_WAITING, PAUSE, REPEAT_AFTER, Events, event_of

Json = dict[str, Any]
EPOCH = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
POD = About.pod("team", "llm-0", "uid-1")


class Api:
    def __init__(self) -> None:
        self.events: list[Json] = []
        self.errors: list[Exception] = []
        self.tried: list[float] = []

    async def create_event(self, event: Mapping[str, Any]) -> None:
        self.tried.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        if self.errors:
            raise self.errors.pop(0)
        self.events.append(dict(event))

    @property
    def texts(self) -> list[str]:
        return [event["message"] for event in self.events]


class Stage:
    def __init__(self) -> None:
        self.api = Api()
        loop = asyncio.get_running_loop()
        self.events = Events(
            self.api, instance="proc", now=lambda: EPOCH + timedelta(seconds=loop.time()), clock=loop.time
        )
        self.task = asyncio.create_task(self.events.run())

    def tell(self, *texts: str, reason: str = notices.PLACED) -> None:
        for text in texts:
            self.events.tell(Notice(POD, reason, text))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    assert not stage.task.done()
    stage.task.cancel()


async def test_in_the_order_in_which_they_happened_with_their_time(stage: Stage) -> None:
    stage.tell("one")
    await asyncio.sleep(10)
    stage.tell("two", "three")
    await asyncio.sleep(1)
    assert stage.api.texts == ["one", "two", "three"]
    stamps = [event["lastTimestamp"] for event in stage.api.events]
    assert stamps == ["2026-11-21T12:00:00Z", "2026-11-21T12:00:10Z", "2026-11-21T12:00:10Z"]
    assert stage.events.sent == 3


async def test_the_same_is_told_once_in_a_while(stage: Stage) -> None:
    stage.tell("one", "one")
    await asyncio.sleep(1)
    stage.tell("one")
    await asyncio.sleep(REPEAT_AFTER)
    stage.tell("one")
    await asyncio.sleep(1)
    assert stage.api.texts == ["one", "one"]
    assert stage.events.dropped == 0


async def test_a_burst_is_spread_and_keeps_nobody_waiting(stage: Stage) -> None:
    stage.tell(*map(str, range(100)))
    assert stage.api.tried == []  # telling is no request
    await asyncio.sleep(60)
    assert len(stage.api.texts) == 100
    assert stage.api.tried[-1] - stage.api.tried[0] >= 99 * PAUSE


async def test_warnings_go_first(stage: Stage) -> None:
    stage.tell(*map(str, range(20)))
    stage.tell("alarm", reason=notices.LOST)
    await asyncio.sleep(PAUSE)
    assert stage.api.texts[0] == "alarm"


async def test_too_many_are_dropped_the_oldest_first_warnings_last(stage: Stage) -> None:
    stage.tell("alarm", reason=notices.LOST)
    stage.tell(*map(str, range(MOST_WAITING + 5)))
    assert stage.events.dropped == 6
    await asyncio.sleep(MOST_WAITING * 1.0)
    assert stage.api.texts[:2] == ["alarm", "6"]
    assert len(stage.api.texts) == MOST_WAITING


async def test_warnings_alone_are_bounded_too(stage: Stage) -> None:
    stage.tell(*map(str, range(MOST_WAITING + 1)), reason=notices.LOST)
    await asyncio.sleep(MOST_WAITING * 1.0)
    assert (stage.api.texts[0], len(stage.api.texts)) == ("1", MOST_WAITING)


async def test_while_the_api_is_silent_they_are_lost_slowly_and_may_be_told_again(stage: Stage) -> None:
    stage.api.errors = [Unavailable("no answer")] * 3
    stage.tell("one", "two", "three", "four")
    await asyncio.sleep(30)
    assert stage.api.texts == ["four"]
    assert stage.api.tried[3] - stage.api.tried[0] >= 15
    assert stage.events.dropped == 3
    stage.tell("one", "four")
    await asyncio.sleep(1)
    assert stage.api.texts == ["four", "one"]


async def test_what_lasts_has_one_name_and_whoever_comes_second_has_nothing_to_add(stage: Stage) -> None:
    stage.api.errors = [Conflict("409: exists")]
    stage.tell("one", reason=notices.BYPASSED)
    await asyncio.sleep(1)
    assert (stage.api.texts, stage.events.dropped) == ([], 0)
    stage.tell("one", reason=notices.BYPASSED)
    await asyncio.sleep(1)
    assert stage.api.texts == [], "it was told lately"


def test_its_name_is_the_pods_and_the_reasons() -> None:
    def name(about: About, reason: str = notices.BYPASSED, text: str = "t") -> str:
        return str(event_of(Notice(about, reason, text), EPOCH, "proc")["metadata"]["name"])

    assert name(POD) == name(POD, text="other words")
    assert len({name(POD), name(POD, notices.CHANGED), name(About.pod("team", "llm-0", "uid-2"))}) == 3
    longest = name(About.pod("team", "a" * 199 + "." + "b" * 53, "u"))
    assert re.fullmatch(r"a{199}\.[0-9a-f]{16}", longest), longest


async def test_a_refusal_concerns_that_one_only(stage: Stage) -> None:
    stage.api.errors = [Refused("403: the namespace is being terminated")]
    stage.tell("one", "two")
    await asyncio.sleep(1)
    assert stage.api.texts == ["two"]


def test_an_event_about_a_pod_stands_in_its_namespace() -> None:
    event = event_of(Notice(POD, notices.REFUSED, "text"), EPOCH, "proc")
    assert event["metadata"] == {"generateName": "llm-0.", "namespace": "team"}
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": "team", "name": "llm-0", "uid": "uid-1"}
    assert event["involvedObject"] == about
    assert (event["type"], event["reason"], event["source"]) == (
        "Warning",
        "GpuRequestRefused",
        {"component": "gpu-extender"},
    )


def test_an_event_about_a_node_stands_in_default() -> None:
    event = event_of(notices.reopened(About.node("n", "uid-n")), EPOCH, "proc")
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "uid-n"}
    assert event["type"] == "Normal"


@pytest.mark.parametrize("text", ["x" * 2000, "é" * 1000, "a" + "€" * 700, "\ud800" * 2000])
def test_a_long_text_is_cut_to_what_an_api_server_takes(text: str) -> None:
    message = event_of(Notice(POD, notices.REFUSED, text), EPOCH, "proc")["message"]
    assert 1000 < len(message.encode()) <= 1024
    assert message.endswith("…")
