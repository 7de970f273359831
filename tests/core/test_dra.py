"""GPUs behind ResourceSlices and ResourceClaims."""

from typing import Any

import pytest

from extender.core.inventory import Inventory, Slice, dra_held, group_slices, read_node
from tests.core.node_cases import claim, device, gpus, node, resource_slice

Json = dict[str, Any]


def shows(inventory: Inventory, **expected: Any) -> None:
    assert {name: getattr(inventory, name) for name in expected} == expected


def whole(count: int, **more: Any) -> list[Json]:
    return [device(f"gpu-{i}", uuid=f"GPU-{i}", pci=f"0000:{i:02x}:00.0", **more) for i in range(count)]


def mig(name: str, parent: str, profile: str = "1g.10gb", memory: str = "9728Mi", **more: Any) -> Json:
    return device(name, "mig", memory, parentUUID=parent, uuid=f"MIG-{name}", profile=profile, **more)


def on_counters(thing: Json, *sets: str) -> Json:
    return thing | {"consumesCounters": [{"counterSet": name, "counters": {}} for name in sets]}


def read(*slices: Json, of: Json | None = None) -> Inventory:
    return read_node(of or {}, slices)


class TestDevices:
    def test_whole_gpus(self) -> None:
        shows(
            read(resource_slice(*whole(2))),
            product="NVIDIA A100-SXM4-80GB",
            mode="dra",
            physical_gpus=2,
            whole_gpus=2,
            memory_mib=81920,
            units={},
            slices={},
            whole_resource=None,
            share_refusal="Dra",
        )

    def test_parents_of_mig_devices_count_though_they_are_not_listed(self) -> None:
        devices = [*whole(1), mig("a", "GPU-x"), mig("b", "GPU-x"), mig("c", "GPU-y", "2g.20gb", "19968Mi")]
        shows(
            read(resource_slice(*devices)),
            physical_gpus=3,
            whole_gpus=1,
            memory_mib=81920,
            slices={"nvidia.com/mig-1g.10gb": Slice(2, 9728), "nvidia.com/mig-2g.20gb": Slice(1, 19968)},
        )

    def test_only_mig_devices_leave_the_parents_memory_unknown(self) -> None:
        shows(read(resource_slice(mig("a", "GPU-x"))), physical_gpus=1, whole_gpus=0, memory_mib=None)

    def test_a_profile_is_named_as_its_resource_would_be(self) -> None:
        assert set(read(resource_slice(mig("a", "GPU-x", "1g.10gb+me"))).slices) == {"nvidia.com/mig-1g.10gb.me"}

    def test_a_mig_device_without_a_parent_proves_no_number(self) -> None:
        orphan = device("a", "mig", "9728Mi", uuid="MIG-a", profile="1g.10gb")
        assert read(resource_slice(*whole(1), orphan)).physical_gpus is None

    def test_dynamic_mig_lists_every_gpu_many_times(self) -> None:
        """Candidates have no uuid; the counter set tells whose they are. Nothing is summed."""
        devices = [on_counters(gpu, f"gpu-{i}-counter-set") for i, gpu in enumerate(whole(2))]
        for i in range(2):
            for place in range(7):
                candidate = device(f"gpu-{i}-mig-{place}", "mig", "9728Mi", profile="1g.10gb")
                devices.append(on_counters(candidate, f"gpu-{i}-counter-set"))
        shows(read(resource_slice(*devices)), physical_gpus=2, whole_gpus=2, memory_mib=81920, slices={})

    @pytest.mark.parametrize(
        "maybe",
        [
            on_counters(mig("a", "GPU-0"), "gpu-0-counter-set"),
            device("a", "mig", "9728Mi", parentUUID="GPU-0", profile="1g.10gb"),
        ],
    )
    def test_what_could_be_cut_is_no_slice(self, maybe: Json) -> None:
        shows(read(resource_slice(*whole(1), maybe)), physical_gpus=1, slices={})

    def test_one_gpu_listed_twice_is_held_once(self) -> None:
        twice = [device("gpu-0", uuid="GPU-0"), device("gpu-7", uuid="GPU-0")]
        shows(read(resource_slice(*twice)), physical_gpus=1, whole_gpus=1)

    def test_counters_may_live_in_slices_of_their_own(self) -> None:
        counters = resource_slice(name="s-2", of=2)
        counters["spec"] |= {"sharedCounters": [{"name": "gpu-0-counter-set", "counters": {}}]}
        shows(read(resource_slice(*whole(1), of=2), counters), physical_gpus=1, whole_gpus=1)

    def test_consumable_shares_are_nobodys_whole_gpu(self) -> None:
        devices = [thing | {"allowMultipleAllocations": True} for thing in whole(2)]
        shows(read(resource_slice(*devices)), physical_gpus=2, whole_gpus=0, memory_mib=81920)

    def test_devices_for_virtual_machines_are_not_for_containers(self) -> None:
        vfio = [device(f"gpu-vfio-{i}", "vfio", None, pci=f"0000:0{i}:00.0") for i in range(2)]
        shows(read(resource_slice(*vfio)), physical_gpus=2, whole_gpus=0, memory_mib=None)

    def test_a_gpu_listed_for_both_is_one_gpu(self) -> None:
        vfio = device("gpu-vfio-0", "vfio", None, pci="0000:00:00.0", productName=None)
        shows(read(resource_slice(*whole(1), vfio)), physical_gpus=1, whole_gpus=1, memory_mib=81920)

    def test_a_type_of_the_future_proves_no_number(self) -> None:
        shows(read(resource_slice(*whole(1), device("x", "chiplet"))), physical_gpus=None, whole_gpus=1)

    def test_unified_memory_has_no_capacity(self) -> None:
        shows(read(resource_slice(*whole(1, memory=None))), memory_mib=None, whole_gpus=1)

    @pytest.mark.parametrize(
        ("memory", "mib"), [("40Gi", 40960), ("81559Mi", 81559), ("0", None), ("lots", None), ("-1Gi", None)]
    )
    def test_memory(self, memory: str, mib: int | None) -> None:
        assert read(resource_slice(*whole(1, memory=memory))).memory_mib == mib

    def test_gpus_of_different_memory(self) -> None:
        devices = [*whole(1), device("gpu-1", uuid="GPU-z", memory="40Gi", productName="other")]
        shows(read(resource_slice(*devices)), memory_mib=None, product=None, physical_gpus=2)

    def test_a_cut_gpu_of_another_model_hides_the_memory(self) -> None:
        devices = [*whole(1), mig("a", "GPU-x", productName="other")]
        shows(read(resource_slice(*devices)), memory_mib=None, product=None)

    @pytest.mark.parametrize(("effect", "healthy"), [("NoSchedule", 1), ("NoExecute", 1), ("None", 2)])
    def test_taints_show_health(self, effect: str, healthy: int) -> None:
        first, second = whole(2)
        first["taints"] = [{"key": "gpu.nvidia.com/xid", "effect": effect}]
        shows(read(resource_slice(first, second)), physical_gpus=2, whole_gpus=healthy)

    def test_until_v1beta1_attributes_were_one_level_deeper(self) -> None:
        (flat,) = whole(1)
        deep = {"name": flat["name"], "basic": {k: v for k, v in flat.items() if k != "name"}}
        assert read(resource_slice(deep)) == read(resource_slice(flat))

    def test_qualified_names_are_the_same_attributes(self) -> None:
        (thing,) = whole(1)
        own = {k if "/" in k else f"gpu.nvidia.com/{k}": v for k, v in thing["attributes"].items()}
        qualified = thing | {"attributes": own}
        assert read(resource_slice(qualified)) == read(resource_slice(thing))


class TestPools:
    def test_only_the_newest_generation_counts(self) -> None:
        old = resource_slice(*whole(8), name="old", generation=2)
        new = resource_slice(*whole(2), name="new", generation=3)
        assert read(old, new).physical_gpus == 2

    def test_an_incomplete_pool_is_unknown(self) -> None:
        shows(
            read(resource_slice(*whole(2), of=2)),
            mode="dra",
            physical_gpus=None,
            whole_gpus=0,
            memory_mib=None,
            share_refusal="Dra",
        )

    def test_an_incomplete_new_generation_does_not_bring_back_the_old_one(self) -> None:
        old = resource_slice(*whole(8), name="old", generation=2)
        new = resource_slice(*whole(1), name="new", generation=3, of=2)
        assert read(old, new).physical_gpus is None

    def test_a_pool_of_two_slices(self) -> None:
        first, second = whole(2)
        slices = [resource_slice(first, name="a", of=2), resource_slice(second, name="b", of=2)]
        assert read(*slices).physical_gpus == 2

    def test_an_unreadable_generation_is_unknown(self) -> None:
        broken = resource_slice(*whole(1))
        broken["spec"]["pool"]["generation"] = "3"
        assert read(broken).physical_gpus is None

    def test_group_slices_by_node_and_each_once(self) -> None:
        slices = [
            resource_slice(*whole(1), node="a"),
            resource_slice(*whole(1), node="a"),
            resource_slice(*whole(1), node="b"),
            resource_slice(node="c", driver="compute-domain.nvidia.com"),
            {"spec": {"driver": "gpu.nvidia.com", "allNodes": True}},
        ]
        grouped = group_slices(slices)
        assert {name: len(own) for name, own in grouped.items()} == {"a": 1, "b": 1}
        assert read_node({}, grouped["a"]).physical_gpus == 1


class TestBesideTheDevicePlugin:
    def test_the_operators_label_without_device_plugin(self) -> None:
        thing = node({"gpu.deploy.dra-driver": "true"}, gpu=0)
        shows(read_node(thing), mode="dra", physical_gpus=None, whole_gpus=0, share_refusal="Dra")

    def test_the_label_with_a_device_plugin_that_works(self) -> None:
        thing = node(gpus(2) | {"gpu.deploy.dra-driver": "true"}, gpu=2)
        shows(read_node(thing), mode="none", whole_gpus=2, share_refusal=None)

    def test_two_parties_that_give_out_the_same_gpus_hold_nothing_exclusively(self) -> None:
        inventory = read(resource_slice(*whole(2)), of=node(gpus(2), gpu=2))
        shows(inventory, mode="dra", physical_gpus=2, whole_gpus=0, units={"nvidia.com/gpu": 2})

    def test_other_drivers_leave_the_device_plugin_alone(self) -> None:
        domain = resource_slice(device("channel-0", "channel"), driver="compute-domain.nvidia.com")
        shows(read(domain, of=node(gpus(2), gpu=2)), mode="none", whole_gpus=2)

    def test_a_dra_driver_that_publishes_no_device_leaves_the_device_plugin_alone(self) -> None:
        shows(read(resource_slice(), of=node(gpus(2), gpu=2)), mode="none", whole_gpus=2)

    def test_an_unusable_node_has_no_whole_gpu(self) -> None:
        cordoned = node(spec={"unschedulable": True})
        shows(read(resource_slice(*whole(2)), of=cordoned), unusable="Cordoned", physical_gpus=2, whole_gpus=0)

    def test_the_administrators_word_on_memory(self) -> None:
        thing = node({"gpu-extender.io/gpu-memory-mib": "100000"})
        assert read(resource_slice(*whole(1, memory=None)), of=thing).memory_mib == 100000


class TestHeld:
    SLICES = group_slices([resource_slice(*whole(4)[:3], whole(4)[3] | {"allowMultipleAllocations": True})])

    def held(self, *claims: Json) -> dict[str, int]:
        return dra_held(claims, self.SLICES)

    def test_whole_gpus(self) -> None:
        assert self.held(claim(("n", "gpu-0")), claim(("n", "gpu-1"), ("n", "gpu-2"))) == {"n": 3}

    def test_one_device_in_two_claims_is_one_gpu(self) -> None:
        assert self.held(claim(("n", "gpu-0")), claim(("n", "gpu-0"))) == {"n": 1}

    @pytest.mark.parametrize(
        "other",
        [
            claim(("n", "gpu-3")),  # several claims may have it
            claim(("n", "gpu-9")),
            claim(("elsewhere", "gpu-0")),
            claim(("n", "gpu-0"), driver="other.example.com"),
            claim(("n", "gpu-0"), adminAccess=True),
            {"status": {}},
            {},
        ],
    )
    def test_what_holds_no_whole_gpu(self, other: Json) -> None:
        assert self.held(other) == {}

    def test_mig_devices_hold_no_whole_gpu(self) -> None:
        slices = group_slices([resource_slice(mig("a", "GPU-x"))])
        assert dra_held([claim(("n", "a"))], slices) == {}

    def test_an_unhealthy_gpu_is_still_held(self) -> None:
        (gpu,) = whole(1)
        slices = group_slices([resource_slice(gpu | {"taints": [{"key": "k", "effect": "NoExecute"}]})])
        assert dra_held([claim(("n", "gpu-0"))], slices) == {"n": 1}

    def test_an_incomplete_pool_tells_nothing(self) -> None:
        slices = group_slices([resource_slice(*whole(1), of=2)])
        assert dra_held([claim(("n", "gpu-0"))], slices) == {}
