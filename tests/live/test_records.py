"""Node records and the owner of the reservation pods, as list and watch show them."""

from typing import Any

import pytest

from extender.binding.records import config_map_of
from extender.core import names
from extender.core.decisions import Decisions, Policy
from extender.core.errors import Conflict, Refused
from extender.core.nodereader import read_nodes
from extender.core.record import Entry, NodeRecord, Opened
from extender.core.reservation import OWNER
from extender.live.records import Records
from extender.reflector import Reflector
from tests.builders import make_node
from tests.live.scripted import event

Json = dict[str, Any]
CARD = 1000


def config_map(name: str, uid: str = "owner-uid") -> Json:
    return {"metadata": {"name": name, "namespace": names.RESERVATION_NAMESPACE, "uid": uid}}


def record(mib: int) -> Json:
    opened = {"share-1": Opened("share-1", "r", "GPU-1", CARD)}
    entry = Entry("share-1", "u", "default/a", mib, "other-1", names.TIME_SLICING)
    written = NodeRecord.empty().with_entries([entry], opened, {})
    assert isinstance(written, NodeRecord)
    found: Json = config_map_of("n", written)
    return found


class World:
    """One node with a GPU."""

    def __init__(self) -> None:
        self.decisions = Decisions(Policy(), claim_ttl=5, timer=lambda: 0.0)
        watcher = Reflector(self.decisions)
        watcher.nodes(read_nodes([make_node("n").gpus(1, mib=CARD).build()]))
        self.created: list[Json] = []
        self.refusal: Exception | None = None
        self.records = Records(watcher, self._create)

    async def _create(self, found: Json) -> Json:
        if self.refusal is not None:
            raise self.refusal
        self.created.append(found)
        return config_map(found["metadata"]["name"], "made")

    def used_mib(self) -> int:
        state = self.decisions.ledger.state("n")
        assert state is not None
        return sum(gpu.used_mib for gpu in state.gpus)


@pytest.fixture
def world() -> World:
    return World()


async def test_the_owner_is_found(world: World) -> None:
    await world.records.replace([config_map("kube-root-ca.crt"), config_map(OWNER)])
    assert world.records.owner == (OWNER, "owner-uid")
    assert world.created == []


async def test_a_missing_owner_is_made_in_its_namespace(world: World) -> None:
    await world.records.replace([config_map("kube-root-ca.crt")])
    assert world.records.owner == (OWNER, "made")
    [made] = world.created
    assert made["metadata"] == {"name": OWNER, "namespace": names.RESERVATION_NAMESPACE}


async def test_another_replica_was_faster(world: World) -> None:
    world.refusal = Conflict("already exists")
    await world.records.replace([])
    assert world.records.owner is None
    world.records.change(event("ADDED", config_map(OWNER)))
    assert world.records.owner == (OWNER, "owner-uid")


async def test_without_the_right_to_make_it_the_list_is_not_taken_in(world: World) -> None:
    world.refusal = Refused("configmaps is forbidden")
    with pytest.raises(Refused):
        await world.records.replace([])


async def test_an_owner_that_is_deleted_owns_nothing_more(world: World) -> None:
    """The garbage collector would end what names it."""
    await world.records.replace([config_map(OWNER)])
    world.records.change(event("DELETED", config_map("another")))
    assert world.records.owner is not None
    world.records.change(event("DELETED", config_map(OWNER)))
    assert world.records.owner is None


async def test_a_record_reaches_the_ledger_by_list_and_by_event(world: World) -> None:
    await world.records.replace([config_map(OWNER), record(300)])
    assert world.used_mib() == 300
    world.records.change(event("MODIFIED", record(500)))
    assert world.used_mib() == 500


async def test_a_record_that_is_deleted_holds_its_room(world: World) -> None:
    await world.records.replace([config_map(OWNER), record(300)])
    world.records.change(event("DELETED", record(300)))
    assert world.used_mib() == 300
    await world.records.replace([config_map(OWNER)])
    assert world.used_mib() == 300
