"""One collection kept in step, whatever list and watch answer."""

import asyncio

import pytest

from extender.cluster import Collection
from extender.core.errors import ApiError, Gone, NotFound, Refused, Unavailable
from extender.live.listwatch import FIRST_PAUSE, LONGEST_PAUSE, UNSERVED_PAUSE, ListWatch
from tests.live.scripted import Listed, Memory, Script, Watched, bookmark, event, thing

DOWN = Unavailable("no answer")
GONE = Gone("too old resource version")
MISSING = NotFound("the server could not find the requested resource")


async def play(
    script: Script, sink: Memory | None = None, seconds: float = 200.0, collection: Collection = Collection.PODS
) -> ListWatch:
    """Let it run for so long."""
    watch = ListWatch(script, collection, sink or Memory(), sleep=asyncio.sleep)
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(seconds)
    assert not running.done(), running
    running.cancel()
    return watch


async def test_a_list_of_many_pages_is_one_list_and_the_watch_goes_on_from_it() -> None:
    script = Script(
        Listed([thing(name) for name in "abc"], "7"),
        Watched([event("ADDED", thing("d", 8)), event("MODIFIED", thing("a", 9)), event("DELETED", thing("b", 10))]),
    )
    sink = Memory()
    watch = await play(script, sink)
    assert sink.lists == [["a", "b", "c"]]
    assert sink.changes == [("ADDED", "d"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert script.calls == [("list", None), ("watch", "7"), ("watch", "10")]
    assert watch.behind is None
    assert watch.in_step.is_set()


async def test_a_bookmark_moves_the_version_and_is_no_change() -> None:
    script = Script(Listed(version="7"), Watched([bookmark(50)], DOWN))
    sink = Memory()
    await play(script, sink)
    assert script.calls[-1] == ("watch", "50")
    assert sink.changes == []


async def test_a_broken_watch_goes_on_from_its_last_event_without_a_list() -> None:
    script = Script(Listed(version="7"), Watched([event("ADDED", thing("a", 8))], DOWN), Watched([], DOWN))
    sink = Memory()
    watch = await play(script, sink)
    assert script.calls == [("list", None), ("watch", "7"), ("watch", "8"), ("watch", "8")]
    assert len(sink.lists) == 1
    assert watch.behind is None  # What was known goes on being served.


async def test_an_event_without_a_version_does_not_lose_the_place() -> None:
    nameless = thing("a", 8)
    del nameless["metadata"]["resourceVersion"]
    script = Script(Listed(version="7"), Watched([event("MODIFIED", nameless)], DOWN))
    await play(script)
    assert script.calls[-1] == ("watch", "7")


@pytest.mark.parametrize("error", [GONE, MISSING])
async def test_what_the_server_no_longer_knows_is_listed_anew(error: ApiError) -> None:
    script = Script(Listed([thing("a")], "7"), Watched([], error), Listed([thing("b")], "90"))
    sink = Memory()
    watch = await play(script, sink)
    assert script.calls == [("list", None), ("watch", "7"), ("list", None), ("watch", "90")]
    assert sink.lists == [["a"], ["b"]]
    assert watch.behind is None  # It was in step; nothing must be refused meanwhile.


async def test_a_list_that_took_too_long_begins_again_and_shows_nothing_half() -> None:
    half = Listed([thing(name) for name in "abc"], error=GONE)
    script = Script(half, Listed([thing("a")], "7"))
    sink = Memory()
    await play(script, sink)
    assert sink.lists == [["a"]]


async def test_what_is_kept_of_an_object_is_decided_while_the_list_is_read() -> None:
    sink = Memory()
    await play(Script(Listed([thing(name) for name in "abc"], error=DOWN), Listed()), sink)
    assert sink.slimmed == 2  # The page that came, before the one that did not.


async def test_until_the_first_list_is_complete_it_says_why_not() -> None:
    script = Script(Listed(error=DOWN), Listed(error=Refused("pods is forbidden")), Listed())
    watch = ListWatch(script, Collection.PODS, Memory(), sleep=asyncio.sleep)
    assert watch.behind == "the first list of pods is not complete"
    running = asyncio.create_task(watch.run())
    said = []
    while not watch.in_step.is_set():
        await asyncio.sleep(0.05)
        if watch.behind not in said:
            said.append(watch.behind)
    running.cancel()
    assert said == [
        "the first list of pods is not complete: no answer",
        "the first list of pods is not complete: pods is forbidden",
        None,
    ]


async def test_a_collection_that_old_servers_lack_is_empty_and_asked_for_again() -> None:
    script = Script(Listed(error=MISSING), Listed(error=MISSING), Listed([thing("a")], "7"))
    sink = Memory()
    watch = await play(script, sink, 3 * UNSERVED_PAUSE, Collection.RESOURCE_SLICES)
    assert sink.lists == [[], [], ["a"]]
    assert script.pauses[:2] == [UNSERVED_PAUSE, UNSERVED_PAUSE]
    assert script.calls[-1] == ("watch", "7")
    assert watch.behind is None


@pytest.mark.parametrize("collection", [Collection.NODES, Collection.PODS, Collection.CONFIG_MAPS])
async def test_a_server_without_pods_is_no_empty_cluster(collection: Collection) -> None:
    """An address with a wrong path answers 404 to everything."""
    script = Script(*[Listed(error=MISSING)] * 3, Listed())
    sink = Memory()
    watch = await play(script, sink, 0.3, collection)
    assert sink.lists == []
    assert watch.behind == f"the first list of {collection.noun} is not complete: {MISSING}"


@pytest.mark.parametrize("error", [DOWN, MISSING, Refused("configmaps is forbidden"), GONE])
async def test_a_sink_that_cannot_take_the_list_gets_another(error: ApiError) -> None:
    """404 too: the namespace in which it would create something may be missing yet."""
    script = Script(Listed([thing("a")]), Listed([thing("b")]))
    sink = Memory(error)
    watch = await play(script, sink)
    assert sink.lists == [["b"]]
    assert watch.behind is None


async def test_pauses_double_up_to_the_longest_and_begin_anew_once_something_was_heard() -> None:
    failures = [Watched([], DOWN)] * 9
    script = Script(Listed(), *failures, Watched([bookmark(20)], DOWN), *failures[:3])
    await play(script, seconds=100)
    [_, *pauses] = script.pauses
    bounds = [min(LONGEST_PAUSE, FIRST_PAUSE * 2**number) for number in range(9)] + [
        FIRST_PAUSE * 2**n for n in range(4)
    ]
    assert len(pauses) == len(bounds)
    for pause, bound in zip(pauses, bounds, strict=True):
        assert bound / 2 <= pause <= bound


async def test_replicas_do_not_come_back_in_the_same_moment() -> None:
    scripts = [Script(Listed(), Watched([], DOWN)) for _ in range(8)]
    await asyncio.gather(*(play(script) for script in scripts))
    assert len({script.pauses[1] for script in scripts}) > 1


async def test_a_list_that_works_between_watches_that_do_not_is_no_reason_to_hurry() -> None:
    """Each list of a large cluster is work for the API server."""
    script = Script(*[answer for _ in range(8) for answer in (Listed(), Watched([], GONE))], Listed())
    await play(script, seconds=100)
    before_lists = [pause for pause, (kind, _) in zip(script.pauses, script.calls[1:], strict=True) if kind == "list"]
    assert before_lists[-1] >= LONGEST_PAUSE / 2


async def test_a_watch_that_the_server_ends_goes_on_at_once_and_one_that_said_nothing_soon() -> None:
    script = Script(Listed(version="7"), Watched([bookmark(8)]), Watched([]), Watched([bookmark(9)]))
    await play(script)
    assert script.calls[1:] == [("watch", "7"), ("watch", "8"), ("watch", "8"), ("watch", "9")]
    assert script.pauses == [0, 0, FIRST_PAUSE, 0]


async def test_each_failure_is_told() -> None:
    told: list[None] = []
    script = Script(Listed(error=DOWN), Listed(), Watched([], GONE), Listed(), Watched([bookmark(11)]))
    watch = ListWatch(script, Collection.PODS, Memory(), sleep=asyncio.sleep, failed=lambda: told.append(None))
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(100)
    running.cancel()
    assert len(told) == 2
