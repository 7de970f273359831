"""The picture of section 4: every field, with the values of the example."""

from extender.core import names
from extender.core.inspect import picture
from extender.core.ledger import Ledger
from extender.core.nodereader import read_nodes
from extender.core.values import PodOnNode, Reservation, ShareOnGpu, ShareState
from tests.builders import make_node


def ledger() -> Ledger:
    made = Ledger()
    gpu = make_node("gpu-01").gpus(8, mib=81920, product="NVIDIA-A100-SXM4-80GB").build()
    for node in read_nodes([gpu, make_node("cpu-01").build()]):
        made.put_node(node)
    return made


def test_the_whole_picture() -> None:
    books = ledger()
    books.put_reservation(Reservation("share-7f3k2", "gpu-01", "u", "GPU-2c1f", 81920))
    share = (ShareOnGpu("share-7f3k2", "GPU-2c1f", 40960),)
    books.observe(PodOnNode("uid-1", "team-a", "llm-0", "gpu-01", {}, share, observed=True))
    books.observe(PodOnNode("uid-2", "team-b", "train-0", "gpu-01", {names.GPU_RESOURCE: 1}, observed=True))
    seen = picture(list(books.snapshot()))
    assert seen["nodes"][0] == {
        "name": "gpu-01",
        "product": "NVIDIA-A100-SXM4-80GB",
        "mode": "none",
        "physicalGpus": 8,
        "wholeGpus": 8,
        "memoryMiB": 81920,
        "units": {},
        "slices": {},
        "unusable": None,
        "wholeGpusHeld": 1,
        "sharedGpus": [
            {
                "id": "share-7f3k2",
                "uuid": "GPU-2c1f",
                "memoryMiB": 81920,
                "usedMiB": 40960,
                "state": "ready",
                "shares": [
                    {
                        "namespace": "team-a",
                        "pod": "llm-0",
                        "uid": "uid-1",
                        "memoryMiB": 40960,
                        "state": "confirmed",
                    }
                ],
            }
        ],
    }
    assert seen["totals"] == {"gpus": 8, "memoryMiB": 655360, "usedMiB": 122880, "pods": 2}


def test_a_node_without_gpus_is_listed() -> None:
    [_, cpu] = picture(list(ledger().snapshot()))["nodes"]
    assert (cpu["name"], cpu["mode"], cpu["physicalGpus"], cpu["memoryMiB"]) == ("cpu-01", "none", 0, None)


def test_a_pod_on_two_gpus_is_one_pod() -> None:
    books = ledger()
    for index in range(2):
        books.put_reservation(Reservation(f"s{index}", "gpu-01", "u", f"GPU-{index}", 81920))
    shares = tuple(ShareOnGpu(f"s{index}", f"GPU-{index}", 100) for index in range(2))
    books.observe(PodOnNode("uid-1", "d", "p", "gpu-01", {}, shares, observed=True))
    assert picture(list(books.snapshot()))["totals"] == {"gpus": 8, "memoryMiB": 655360, "usedMiB": 200, "pods": 1}


def test_states_and_reasons() -> None:
    books = ledger()
    waiting = (ShareOnGpu("s0", None, 100),)
    books.put_reservation(Reservation("s0", "gpu-01"))
    books.put_reservation(Reservation("s1", "gpu-01", "u", "GPU-1", 81920, closing=True))
    books.observe(PodOnNode("a", "d", "a", "gpu-01", {}, waiting, state=ShareState.ASSUMED))
    books.observe(PodOnNode("b", "d", "b", "gpu-01", {}, (ShareOnGpu("s2", "GPU-2", 7),), observed=True))
    node = picture(list(books.snapshot()))["nodes"][0]
    assert {gpu["id"]: (gpu["state"], gpu["uuid"]) for gpu in node["sharedGpus"]} == {
        "s0": ("assumed", None),
        "s1": ("closing", "GPU-1"),
        "s2": ("lost", "GPU-2"),
    }
    assert node["sharedGpus"][0]["shares"][0]["state"] == "assumed"
    assert node["unusable"] == "ReservationLost"


def test_unknown_memory_counts_as_nothing() -> None:
    books = Ledger()
    [node] = read_nodes([make_node("n").gpus(2, mib=None).build()])
    books.put_node(node)
    books.observe(PodOnNode("w", "d", "w", "n", {names.GPU_RESOURCE: 1}, observed=True))
    assert picture(list(books.snapshot()))["totals"] == {"gpus": 2, "memoryMiB": 0, "usedMiB": 0, "pods": 1}
