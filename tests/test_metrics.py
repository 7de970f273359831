"""/metrics: the names and labels that the documentation promises, with true values."""

from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from extender.core import names
from extender.core.ledger import Ledger
from extender.core.nodereader import read_nodes
from extender.metrics import Metrics, Scrape
from tests.builders import make_node, make_pod
from tests.client import Extender, serve

CARD = 81920
MIB = 1024 * 1024
CONTRACT = {
    "gpu_extender_verb_duration_seconds": ("histogram", {"verb"}),
    "gpu_extender_verb_results": ("counter", {"verb", "result"}),
    "gpu_extender_node_rejections": ("counter", {"reason"}),
    "gpu_extender_gpu_memory_bytes": ("gauge", {"node", "kind"}),
    "gpu_extender_assumed_share_age_seconds": ("gauge", set()),
    "gpu_extender_ledger_differences": ("counter", {"kind"}),
    "gpu_extender_lost_gpus": ("gauge", set()),
}


async def scrape(extender: Extender) -> dict[str, Metric]:
    response = await extender.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def values(family: Metric, suffix: str = "") -> dict[tuple[str, ...], float]:
    """Label values, in the order of label names → value."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for sample in family.samples
        if sample.name == family.name + suffix
    }


def lost() -> list[Any]:
    """A share whose reservation pod is gone."""
    pod = make_pod("old").gpu_memory(1000).on_node("n").build()
    pod["metadata"]["annotations"] |= {
        names.SHARED_GPUS: "share-1",
        names.VISIBLE_DEVICES: "GPU-1",
        names.MEMORY_MIB: "1000",
    }
    return [pod]


async def test_every_name_of_the_contract() -> None:
    nodes = make_node("n").gpus(2, mib=CARD).build(), make_node("m").gpus(2, mib=CARD).build(), make_node("c").build()
    async with serve(*nodes, pods=lost()) as extender:
        assert await extender.schedule(make_pod("p").gpu_fraction("0.5").build()) == "m"
        families = await scrape(extender)
    for name, (kind, labels) in CONTRACT.items():
        family = families[name]
        assert family.type == kind
        assert family.documentation
        assert family.samples
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, sample
    samples = {sample.name for family in families.values() for sample in family.samples}
    assert {"gpu_extender_verb_results_total", "gpu_extender_node_rejections_total"} <= samples
    assert "gpu_extender_ledger_differences_total" in samples


async def test_what_is_counted() -> None:
    nodes = make_node("n").gpus(2, mib=CARD).build(), make_node("c").build()
    async with serve(*nodes) as extender:
        pod = make_pod("p").gpu_fraction("0.5").build()
        assert await extender.schedule(pod) == "n"
        await extender.filter(make_pod("big").gpu_memory(CARD + 1).build())
        await extender.filter(make_pod("wrong").gpu_memory("x").build())
        await extender.http.post("/scheduler/filter", content=b"{")
        await extender.bind(pod, "c")
        families = await scrape(extender)
    results = values(families["gpu_extender_verb_results"], "_total")
    assert results == {
        ("fits", "filter"): 1,
        ("unfit", "filter"): 2,
        ("invalid", "filter"): 1,
        ("bound", "bind"): 1,
        ("refused", "bind"): 1,
    }
    rejections = values(families["gpu_extender_node_rejections"], "_total")
    assert rejections == {("NoGpu",): 2, ("GpuTooSmall",): 1, ("InvalidRequest",): 2}
    durations = values(families["gpu_extender_verb_duration_seconds"], "_count")
    assert (durations["filter",], durations["bind",]) == (4, 2)


async def test_memory_of_gpus() -> None:
    nodes = make_node("n").gpus(4, mib=CARD).build(), make_node("u").gpus(1, mib=None).build(), make_node("c").build()
    async with serve(*nodes) as extender:
        assert await extender.schedule(make_pod("p").gpu_memory(1000).num_devices(2).build()) == "n"
        assert await extender.schedule(make_pod("w").gpus(1).build(), ["n"]) == "n"
        memory = values((await scrape(extender))["gpu_extender_gpu_memory_bytes"])
    # Labels in order: kind, node. What is unknown is absent, not 0.
    assert memory == {("total", "n"): 4 * CARD * MIB, ("shared", "n"): 2000 * MIB, ("whole", "n"): CARD * MIB}


async def test_lost_gpus_and_differences() -> None:
    async with serve(make_node("n").gpus(2, mib=CARD).build(), pods=lost()) as extender:
        families = await scrape(extender)
        assert values(families["gpu_extender_lost_gpus"]) == {(): 1}
        assert values(families["gpu_extender_ledger_differences"], "_total") == {("lost",): 1}
        await extender.get("/check")
        again = values((await scrape(extender))["gpu_extender_ledger_differences"], "_total")
        assert again == {("lost",): 1}, "to look is not to find once more"


async def test_two_scrapes_without_a_change_are_equal() -> None:
    async with serve(make_node("n").gpus(2, mib=CARD).build()) as extender:
        await extender.schedule(make_pod("p").gpu_fraction("0.5").build())
        assert (await extender.http.get("/metrics")).text == (await extender.http.get("/metrics")).text


def test_the_age_of_what_is_assumed() -> None:
    text = Metrics().render(Scrape([], 12.5, {})).decode()
    assert "gpu_extender_assumed_share_age_seconds 12.5\n" in text


def test_two_services_share_no_counters() -> None:
    first, second = Metrics(), Metrics()
    first.results.labels("bind", "bound").inc()
    assert b'verb="bind"' in first.render(Scrape([], 0, {}))
    assert b'verb="bind"' not in second.render(Scrape([], 0, {}))


def test_rendering_reads_only_what_it_is_given() -> None:
    """It runs in a thread, while decisions go on: states are frozen values."""
    ledger = Ledger()
    [node] = read_nodes([make_node("n").gpus(2, mib=CARD).build()])
    ledger.put_node(node)
    states = list(ledger.snapshot())
    metrics = Metrics()
    before = metrics.render(Scrape(states, 0, {}))
    ledger.drop_node("n")
    assert metrics.render(Scrape(states, 0, {})) == before


async def test_fragmentation_by_node_and_in_all() -> None:
    """What is left on a card is useless once everybody asks for more than that."""
    async with serve(make_node("n").gpus(1, mib=1000).build(), make_node("m").gpus(1, mib=1000).build()) as extender:
        for index in range(20):
            await extender.schedule(make_pod(f"p{index}").gpu_memory(600).build())
        text = (await extender.http.get("/metrics")).text
        assert 'gpu_extender_gpu_memory_fragmented_bytes{node="n"} 4.194304e+08' in text
        assert 'gpu_extender_gpu_memory_fragmented_bytes{node="m"} 4.194304e+08' in text
        assert "gpu_extender_cluster_gpu_memory_fragmented_bytes 8.388608e+08" in text


def test_fragmentation_in_all_is_that_of_the_nodes_to_the_byte() -> None:
    text = Metrics().render(Scrape([], 0, dict.fromkeys("abc", 1 / 3))).decode()
    assert text.count("} 349525.0\n") == 3
    assert "gpu_extender_cluster_gpu_memory_fragmented_bytes 1.048575e+06" in text
