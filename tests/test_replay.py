"""Thousands of pods through HTTP, against an account that knows nothing but the public surface.

Nothing of the product's core is used here: sizes, names and rules are those that the documentation promises.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.builders import make_node, make_pod
from tests.client import Extender, serve

OURS = "gpu-extender.io/"
#: Node → its GPUs, and MiB of each.
CLUSTER = {"big-0": (8, 81920), "big-1": (8, 81559), "mid-0": (4, 46068), "small-0": (2, 15360), "small-1": (1, 24576)}
CPU_NODES = ("cpu-0", "cpu-1")


@dataclass(frozen=True)
class Wish:
    """What a pod asks for: MiB or thousandths of a GPU on each of ``devices``, or whole GPUs, or nothing."""

    mib: int = 0
    thousandths: int = 0
    devices: int = 1
    whole: int = 0

    @property
    def share(self) -> bool:
        return bool(self.mib or self.thousandths)

    def on(self, card: int) -> int:
        return self.mib or max(1, card * self.thousandths // 1000)

    def pod(self, name: str) -> Any:
        made = make_pod(name, "replay")
        if self.mib:
            made.gpu_memory(self.mib)
        elif self.thousandths:
            made.gpu_fraction(f"0.{self.thousandths:03}")
        if self.share and self.devices > 1:
            made.num_devices(self.devices)
        return (made.gpus(self.whole) if self.whole else made).build()


@dataclass
class Account:
    """Every card of the cluster, and who holds what of it."""

    #: (node, device) → pod UID → MiB
    shares: dict[tuple[str, str], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    #: node → pod UID → GPUs
    whole: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    def bound(self, pod: Mapping[str, Any], node: str, wish: Wish) -> None:
        """The extender says that it is bound: what it was given is what it asked for, and was free."""
        metadata = pod["metadata"]
        assert pod["spec"]["nodeName"] == node
        written = {key[len(OURS) :]: value for key, value in metadata["annotations"].items() if key.startswith(OURS)}
        if wish.whole:
            self.whole[node][metadata["uid"]] = wish.whole
        if not wish.share:
            assert not written
        else:
            devices = written["visible-devices"].split(",")
            assert len(set(devices)) == len(devices) == wish.devices
            assert len(set(written["shared-gpus"].split(","))) == wish.devices
            assert int(written["memory-mib"]) == wish.on(CLUSTER[node][1])
            for device in devices:
                self.shares[node, device][metadata["uid"]] = int(written["memory-mib"])
        self.check(node)

    def ended(self, uid: str, node: str) -> None:
        self.whole[node].pop(uid, None)
        for held in self.shares.values():
            held.pop(uid, None)

    def check(self, node: str) -> None:
        if node not in CLUSTER:
            assert not self.whole[node]
            assert not self.cards(node)
            return
        gpus, card = CLUSTER[node]
        assert all(sum(held.values()) <= card for held in self.cards(node).values()), f"{node} is oversubscribed"
        assert len(self.cards(node)) + sum(self.whole[node].values()) <= gpus, f"{node} has too few GPUs"

    def cards(self, node: str) -> dict[str, dict[str, int]]:
        """Device → pod UID → MiB of the cards that are shared now."""
        return {device: held for (where, device), held in self.shares.items() if where == node and held}

    def fits(self, node: str, wish: Wish) -> bool:
        """By this account, with nothing under way."""
        gpus, card = CLUSTER.get(node, (0, 0))
        cards = self.cards(node)
        free = gpus - len(cards) - sum(self.whole[node].values())
        if not wish.share:
            return wish.whole <= free
        mib = wish.on(card)
        roomy = sum(sum(held.values()) + mib <= card for held in cards.values())
        return gpus > 0 and mib <= card and roomy + free >= wish.devices

    def compare(self, inspect: Mapping[str, Any]) -> None:
        """With nothing under way, ``/inspect`` says the same."""
        for node in inspect["nodes"]:
            name = node["name"]
            assert {
                gpu["uuid"]: {share["uid"]: share["memoryMiB"] for share in gpu["shares"]} for gpu in node["sharedGpus"]
            } == self.cards(name)
            assert all(gpu["state"] == "ready" for gpu in node["sharedGpus"])
            assert node["wholeGpusHeld"] == sum(self.whole[name].values())
        used = sum(sum(held.values()) for held in self.shares.values())
        used += sum(CLUSTER[node][1] * sum(self.whole[node].values()) for node in CLUSTER)
        pods = {uid for held in (*self.shares.values(), *self.whole.values()) for uid in held}
        assert inspect["totals"] == {
            "gpus": sum(gpus for gpus, _ in CLUSTER.values()),
            "memoryMiB": sum(gpus * card for gpus, card in CLUSTER.values()),
            "usedMiB": used,
            "pods": len(pods),
        }


class Replay:
    """kube-scheduler's part: some pods at a time, each through filter, prioritize and bind, deleted later."""

    def __init__(self, extender: Extender, seed: int) -> None:
        self.extender = extender
        self.account = Account()
        self.random = random.Random(seed)
        self.queue: list[str] = []
        self.landed: dict[str, tuple[Any, str]] = {}
        self.counts = {"bound": 0, "waits": 0, "lost the race": 0}

    def wish(self) -> Wish:
        kind = self.random.random()
        devices = self.random.choice([1, 1, 1, 2, 4])
        if kind < 0.4:
            return Wish(thousandths=self.random.choice([125, 250, 333, 500, 750, 999]), devices=devices)
        if kind < 0.75:
            return Wish(mib=self.random.choice([1, 500, 2000, 4096, 16000, 40000, 81000]), devices=devices)
        return Wish(whole=self.random.choice([1, 1, 2, 4])) if kind < 0.92 else Wish()

    async def play(self, names: list[str], in_flight: int) -> None:
        self.queue = names
        await asyncio.gather(*(self.worker() for _ in range(in_flight)))

    async def worker(self) -> None:
        while self.queue:
            await self.one(self.queue.pop(0), self.wish())
            if self.landed and self.random.random() < 0.55:
                await self.delete(self.random.choice(list(self.landed)))

    async def one(self, name: str, wish: Wish) -> None:
        pod = await self.extender.submit(wish.pod(name))
        await self.others()
        node = await self.decide(pod)
        if node is None:
            self.counts["waits"] += 1
            await self.extender.delete(pod)
            return
        await self.others()
        if await self.extender.bind(pod, node):
            self.counts["lost the race"] += 1
            await self.extender.delete(pod)
            return
        self.account.bound(await self.extender.get(f"/embedded/pods/replay/{name}"), node, wish)
        self.landed[pod["metadata"]["uid"]] = pod, node
        self.counts["bound"] += 1

    async def decide(self, pod: Any) -> str | None:
        asked = [*CLUSTER, *CPU_NODES]
        self.random.shuffle(asked)
        answer = await self.extender.filter(pod, asked)
        assert answer["Error"] == ""
        passed = answer["NodeNames"]
        rejected = [*answer["FailedNodes"], *answer["FailedAndUnresolvableNodes"]]
        if not passed:
            assert sorted(rejected) == sorted(asked), "each rejected node is in exactly one map"
            return None
        assert rejected == []
        assert set(passed) <= set(asked)
        if len(passed) == 1:
            return str(passed[0])
        await self.others()
        scores = await self.extender.prioritize(pod, passed)
        assert set(scores) == set(passed)
        assert all(0 <= score <= 10 for score in scores.values())
        return str(max(passed, key=lambda node: scores[node]))

    async def delete(self, uid: str) -> None:
        pod, node = self.landed.pop(uid)
        self.account.ended(uid, node)
        assert await self.extender.delete(pod) == 200

    async def others(self) -> None:
        """Another pod's turn, now and then."""
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)

    async def agrees(self) -> None:
        """Nothing is under way: whatever we ask, the extender's word is that of our own account."""
        self.account.compare(await self.extender.get("/inspect"))
        assert (await self.extender.get("/check"))["differences"] == []
        for wish in (Wish(mib=1), Wish(mib=20000), Wish(thousandths=500, devices=3), Wish(whole=1), Wish(whole=5)):
            pod = wish.pod("what-if")
            pod["metadata"]["uid"] = ""
            for node in CLUSTER:
                found = (await self.extender.filter(pod, [node]))["NodeNames"]
                assert found == ([node] if self.account.fits(node, wish) else []), (node, wish)


def cluster(**settings: Any) -> Extender:
    nodes = [
        make_node(name).gpus(gpus, mib=mib).cpu(512).pod_slots(500).build() for name, (gpus, mib) in CLUSTER.items()
    ]
    return serve(*nodes, *(make_node(name).build() for name in CPU_NODES), **settings)


@pytest.mark.parametrize(
    ("strategy", "shortlist", "seed"),
    [
        ("binpack", 16, 1),
        ("binpack", 16, 2),
        ("binpack", 1, 3),
        ("spread", 0, 4),
        ("spread", 1, 5),
        ("fgd", 2, 6),
        ("adaptive", 0, 7),
    ],
)
async def test_replay(strategy: str, shortlist: int, seed: int) -> None:
    async with cluster(strategy=strategy, shortlist=shortlist) as extender:
        replay = Replay(extender, seed)
        for part in range(3):
            await replay.play([f"pod-{part}-{i}" for i in range(100)], in_flight=8)
            await replay.agrees()
        assert replay.counts["bound"] > 120, replay.counts
        assert replay.counts["waits"] > 0
        # Claims close the window between the decision and the bind: few pods lose their place in it.
        assert replay.counts["lost the race"] < 30
        for uid in list(replay.landed):
            await replay.delete(uid)
        await replay.agrees()
        assert all(not node["sharedGpus"] for node in (await extender.get("/inspect"))["nodes"])


async def test_an_account_that_is_wrong_is_noticed() -> None:
    """The replay can fail: each rule of its account is broken once."""
    account = Account()
    pod = Wish(mib=8000).pod("p")
    written = {f"{OURS}visible-devices": "GPU-1", f"{OURS}shared-gpus": "share-1", f"{OURS}memory-mib": "8000"}
    pod["spec"]["nodeName"] = "small-0"
    pod["metadata"]["annotations"] |= written
    account.bound(pod, "small-0", Wish(mib=8000))
    other = Wish(mib=8000).pod("q")
    other["spec"]["nodeName"] = "small-0"
    other["metadata"]["annotations"] |= written
    with pytest.raises(AssertionError, match="oversubscribed"):
        account.bound(other, "small-0", Wish(mib=8000))
    with pytest.raises(AssertionError):
        account.bound(pod, "small-1", Wish(mib=8000))
    with pytest.raises(AssertionError):
        account.bound(pod, "small-0", Wish(mib=7000))
    with pytest.raises(AssertionError):
        account.bound(pod, "small-0", Wish(mib=8000, devices=2))
    account = Account()
    account.bound(pod, "small-0", Wish(mib=8000))
    whole = Wish(whole=2).pod("w")
    whole["spec"]["nodeName"] = "small-0"
    with pytest.raises(AssertionError, match="too few GPUs"):
        account.bound(whole, "small-0", Wish(whole=2))
    async with cluster() as extender:
        with pytest.raises(AssertionError):
            account.compare(await extender.get("/inspect"))
