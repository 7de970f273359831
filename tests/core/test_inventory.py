"""Device-plugin nodes: each case is named after the fact that it stands for."""

from typing import Any

import pytest

from extender.core.inventory import Inventory, Slice, read_node
from tests.core.node_cases import gpus, node, profile

GPU = "nvidia.com/gpu"
SHARED = "nvidia.com/gpu.shared"
A100 = "NVIDIA-A100-SXM4-80GB"
TEN, TWENTY = "nvidia.com/mig-1g.10gb", "nvidia.com/mig-2g.20gb"


def shows(inventory: Inventory, **expected: Any) -> None:
    assert {name: getattr(inventory, name) for name in expected} == expected


def sliced(count: int, **more: object) -> dict[str, object]:
    return gpus(count, 9728, product=f"{A100}-MIG-1g.10gb", **more) | {"gpu.slices.gi": 1}


def mixed(count: int, **more: object) -> dict[str, object]:
    return gpus(count, **more) | {"mig.strategy": "mixed"}


class TestWholeGpus:
    def test_plain(self) -> None:
        shows(
            read_node(node(gpus(8), gpu=8)),
            product=A100,
            mode="none",
            physical_gpus=8,
            whole_gpus=8,
            memory_mib=81920,
            units={},
            slices={},
            whole_resource=GPU,
            share_refusal=None,
        )

    def test_an_unhealthy_device_is_physical_but_cannot_be_held(self) -> None:
        shows(read_node(node(gpus(8), gpu=8, allocatable={"gpu": 7})), physical_gpus=8, whole_gpus=7)

    def test_plugin_gone_capacity_stays_and_nothing_is_allocatable(self) -> None:
        shows(
            read_node(node(gpus(8), gpu=8, allocatable={"gpu": 0})),
            mode="none",
            physical_gpus=8,
            whole_gpus=0,
            unusable="NoHealthyGpu",
            share_refusal="NoHealthyGpu",
            whole_resource=GPU,
        )

    def test_plugin_gone_for_long_count_0_proves_nothing(self) -> None:
        shows(
            read_node(node(gpus(8), gpu=0)),
            mode="none",
            physical_gpus=8,
            whole_gpus=0,
            memory_mib=81920,
            share_refusal="NoHealthyGpu",
        )

    def test_mig_strategy_alone_proves_nothing(self) -> None:
        shows(read_node(node(mixed(8), gpu=8)), mode="none", whole_gpus=8, share_refusal=None)

    def test_gfd_before_0_15_has_no_strategy(self) -> None:
        labels = gpus(4, sharing_strategy=None)
        shows(read_node(node(labels, gpu=4)), mode="none", physical_gpus=4, whole_gpus=4, share_refusal=None)

    def test_fake_gpu_operator_writes_memory_product_and_count_only(self) -> None:
        labels = gpus(4, sharing_strategy=None, replicas=None)
        shows(read_node(node(labels, gpu=4)), mode="none", physical_gpus=4, whole_gpus=4, share_refusal=None)

    def test_bare_plugin_without_labels_proves_no_whole_gpu(self) -> None:
        shows(
            read_node(node(gpu=8)),
            mode="unknown",
            physical_gpus=None,
            whole_gpus=0,
            memory_mib=None,
            units={GPU: 8},
            share_refusal="Unknown",
        )

    def test_the_operator_alone_describes_no_gpu(self) -> None:
        labels = {"gpu.present": "true", "mig.strategy": "single", "gpu.deploy.device-plugin": "true"}
        shows(read_node(node(labels, gpu=8)), mode="unknown", whole_gpus=0, units={GPU: 8})

    def test_an_administrator_vouches_for_a_bare_plugin(self) -> None:
        labels = {"gpu-extender.io/gpu-memory-mib": "24576"}
        shows(
            read_node(node(labels, gpu=4)),
            mode="none",
            physical_gpus=4,
            whole_gpus=4,
            memory_mib=24576,
            share_refusal=None,
        )

    @pytest.mark.parametrize("key", ["nvidia.com/gpu.present", "feature.node.kubernetes.io/pci-0302_10de.present"])
    def test_hardware_that_nothing_offers_yet_is_not_no_gpu(self, key: str) -> None:
        shows(read_node(node({key: "true"})), mode="unknown", physical_gpus=None, share_refusal="Unknown")

    def test_allocatable_defaults_to_capacity_as_in_the_api_server(self) -> None:
        thing = node(gpus(2), gpu=2)
        del thing["status"]["allocatable"]
        assert read_node(thing).whole_gpus == 2

    def test_a_resource_missing_from_allocatable_is_not_allocatable(self) -> None:
        thing = node(gpus(2), gpu=2)
        del thing["status"]["allocatable"][GPU]
        assert read_node(thing).whole_gpus == 0

    def test_a_hand_written_node_may_state_allocatable_only(self) -> None:
        thing = node(gpus(2), gpu=2)
        del thing["status"]["capacity"]
        shows(read_node(thing), physical_gpus=2, whole_gpus=2)

    def test_allocatable_above_capacity_counts_no_device_twice(self) -> None:
        shows(read_node(node(gpus(2), gpu=2, allocatable={"gpu": 9})), physical_gpus=2, whole_gpus=2)

    def test_quantities_may_have_suffixes(self) -> None:
        assert read_node(node(gpus(1000), gpu="1k")).whole_gpus == 1000

    @pytest.mark.parametrize("junk", ["many", "1500m", "-1", "1e30"])
    def test_an_unreadable_count_is_unknown_not_zero(self, junk: str) -> None:
        shows(
            read_node(node(gpu=junk)),
            mode="unknown",
            physical_gpus=None,
            whole_gpus=0,
            units={},
            share_refusal="Unknown",
        )

    def test_a_count_that_is_not_quoted_is_still_read(self) -> None:
        thing = node(gpus(2), gpu=8)
        thing["metadata"]["labels"]["nvidia.com/gpu.replicas"] = 4
        thing["metadata"]["labels"]["nvidia.com/gpu.sharing-strategy"] = "time-slicing"
        shows(read_node(thing), mode="time-slicing", physical_gpus=2, whole_gpus=0)

    @pytest.mark.parametrize("attribute", ["replicas", "count"])
    def test_a_garbled_number_makes_the_mode_unknown(self, attribute: str) -> None:
        labels = gpus(8) | {f"gpu.{attribute}": "eight"}
        shows(read_node(node(labels, gpu=8)), mode="unknown", physical_gpus=None, whole_gpus=0, units={GPU: 8})

    def test_other_resources_of_nvidia_are_no_gpus(self) -> None:
        shows(read_node(node(hostdev=8)), mode="none", physical_gpus=0, units={}, share_refusal="NoGpu")


class TestMemory:
    @pytest.mark.parametrize(
        ("label", "mib"),
        [
            ("15360", 15360),
            ("15843721216", 15109),  # very old feature discovery wrote bytes
            ("1048576", 1),
            ("1048575", 1048575),
            ("0", None),
            ("", None),
            ("80Gi", None),
            ("-1", None),
            ("81920.0", None),
            ("٨١٩٢٠", None),
            ("9" * 30, None),
            (None, None),
        ],
    )
    def test_label(self, label: object, mib: int | None) -> None:
        inventory = read_node(node(gpus(8, label), gpu=8))
        shows(inventory, memory_mib=mib, whole_gpus=8, share_refusal=None if mib else "MemoryUnknown")

    @pytest.mark.parametrize(
        "more",
        [
            {"cuda.driver-version.full": "unknown.unknown.unknown"},
            {"cuda.driver-version.major": "unknown"},
            {"gpu.compute.major": "-1"},
        ],
    )
    def test_vfio_discovery_labels_an_address_window_not_memory(self, more: dict[str, object]) -> None:
        inventory = read_node(node(gpus(2, 137438953472) | more, gpu=2))
        shows(inventory, memory_mib=None, share_refusal="MemoryUnknown")

    def test_gh200_is_not_what_its_name_says(self) -> None:
        assert read_node(node(gpus(1, 97871, product="NVIDIA-GH200-480GB"), gpu=1)).memory_mib == 97871

    def test_a_name_never_stands_in_for_the_label(self) -> None:
        assert read_node(node(gpus(1, None), gpu=1)).memory_mib is None

    @pytest.mark.parametrize(("stated", "mib"), [("24576", 24576), ("0", None), ("24Gi", None), ("", None)])
    def test_the_administrator_goes_before_the_label(self, stated: str, mib: int | None) -> None:
        labels = gpus(1) | {"gpu-extender.io/gpu-memory-mib": stated}
        inventory = read_node(node(labels, gpu=1))
        shows(inventory, memory_mib=mib, share_refusal=None if mib else "MemoryUnknown")

    def test_the_administrator_gives_no_memory_to_a_node_without_gpus(self) -> None:
        labels = {"gpu-extender.io/gpu-memory-mib": "24576"}
        shows(read_node(node(labels)), physical_gpus=0, memory_mib=None, share_refusal="NoGpu")


class TestSeveralModels:
    """Labels describe one model; the next minute perhaps the other."""

    def test_more_gpus_than_labelled(self) -> None:
        shows(
            read_node(node(gpus(1), gpu=2)),
            mode="none",
            product=None,
            memory_mib=None,
            physical_gpus=2,
            whole_gpus=2,
            share_refusal="MemoryUnknown",
        )

    def test_the_administrator_may_state_the_smallest(self) -> None:
        labels = gpus(1) | {"gpu-extender.io/gpu-memory-mib": "8192"}
        shows(read_node(node(labels, gpu=2)), memory_mib=8192, share_refusal=None)

    def test_time_sliced(self) -> None:
        labels = gpus(1, replicas=4, sharing_strategy="time-slicing", product="X-SHARED")
        shows(
            read_node(node(labels, gpu=8)),
            mode="time-slicing",
            physical_gpus=2,
            memory_mib=None,
            product=None,
        )

    def test_time_sliced_and_not_divisible_proves_no_number(self) -> None:
        labels = gpus(1, replicas=4, sharing_strategy="time-slicing", product="X-SHARED")
        assert read_node(node(labels, gpu=7)).physical_gpus is None

    def test_mig_mixed_a_whole_gpu_beside_a_model_that_is_all_cut(self) -> None:
        labels = mixed(1, replicas=0) | profile("1g.10gb", 7, 9728)
        shows(
            read_node(node(labels, gpu=1, resources={"mig-1g.10gb": 7})),
            mode="mig-mixed",
            physical_gpus=None,
            whole_gpus=0,
            memory_mib=None,
            product=None,
            units={GPU: 1, TEN: 7},
        )

    def test_mig_mixed_all_labelled_gpus_are_whole_so_the_cut_one_is_another_model(self) -> None:
        labels = mixed(1) | profile("1g.10gb", 7, 9728)
        shows(
            read_node(node(labels, gpu=1, resources={"mig-1g.10gb": 7})),
            mode="mig-mixed",
            physical_gpus=None,
            whole_gpus=1,
            memory_mib=None,
            product=None,
            share_refusal="MemoryUnknown",
        )

    def test_mig_single_slices_of_two_sizes(self) -> None:
        shows(read_node(node(sliced(7), gpu=14)), slices={GPU: Slice(14, None)}, product=None)


class TestReplicas:
    @pytest.mark.parametrize(("strategy", "refusal"), [("time-slicing", "TimeSliced"), ("mps", "Mps")])
    def test_not_renamed(self, strategy: str, refusal: str) -> None:
        labels = gpus(2, replicas=5, sharing_strategy=strategy, product=f"{A100}-SHARED")
        shows(
            read_node(node(labels, gpu=10, allocatable={"gpu": 9})),
            mode=strategy,
            product=f"{A100}-SHARED",
            physical_gpus=2,
            whole_gpus=0,
            memory_mib=81920,
            units={GPU: 9},
            slices={},
            whole_resource=None,
            share_refusal=refusal,
        )

    @pytest.mark.parametrize("stale", [{}, {"gpu": 0}])
    @pytest.mark.parametrize("strategy", ["time-slicing", "mps"])
    def test_renamed(self, strategy: str, stale: dict[str, int]) -> None:
        labels = gpus(2, replicas=5, sharing_strategy=strategy)
        thing = node(labels, resources={**stale, "gpu.shared": 10})
        shows(read_node(thing), mode=strategy, physical_gpus=2, whole_gpus=0, units={SHARED: 10})

    def test_just_renamed_the_former_name_keeps_its_capacity_for_minutes(self) -> None:
        labels = gpus(2, replicas=5, sharing_strategy="time-slicing")
        thing = node(labels, gpu=2, allocatable={"gpu": 0}, resources={"gpu.shared": 10})
        shows(read_node(thing), mode="time-slicing", physical_gpus=2, whole_gpus=0, units={SHARED: 10})

    def test_sharing_just_ended_the_renamed_resource_is_stale(self) -> None:
        thing = node(gpus(2), gpu=2, allocatable={"gpu.shared": 0}, resources={"gpu.shared": 10})
        shows(read_node(thing), mode="none", physical_gpus=2, whole_gpus=2, units={})

    def test_both_names_live_is_no_known_configuration(self) -> None:
        thing = node(gpus(2, replicas=5, sharing_strategy="time-slicing"), gpu=2, resources={"gpu.shared": 10})
        shows(read_node(thing), mode="unknown", whole_gpus=0, units={GPU: 2, SHARED: 10})

    @pytest.mark.parametrize("tell", [{"replicas": 4}, {"product": f"{A100}-SHARED", "replicas": None}])
    def test_gfd_before_0_15_shows_time_slicing_by_replicas_and_suffix(self, tell: dict[str, Any]) -> None:
        labels = gpus(2, sharing_strategy=None, **tell)
        shows(read_node(node(labels, gpu=8)), mode="time-slicing", physical_gpus=2, whole_gpus=0)

    @pytest.mark.parametrize("tell", [{"replicas": 4}, {"product": f"{A100}-SHARED"}])
    def test_labels_that_contradict_each_other_prove_nothing_whole(self, tell: dict[str, Any]) -> None:
        shows(read_node(node(gpus(2, **tell), gpu=8)), mode="unknown", whole_gpus=0, share_refusal="Unknown")

    def test_a_renamed_resource_alone_shows_sharing(self) -> None:
        labels = gpus(2, sharing_strategy=None, replicas=None)
        thing = node(labels, resources={"gpu.shared": 10})
        shows(read_node(thing), mode="time-slicing", physical_gpus=2, whole_gpus=0, units={SHARED: 10})

    def test_a_renamed_resource_contradicts_the_strategy_none(self) -> None:
        thing = node(gpus(2), resources={"gpu.shared": 10})
        shows(read_node(thing), mode="unknown", physical_gpus=2, whole_gpus=0, units={SHARED: 10})

    def test_a_strategy_of_the_future_is_unknown(self) -> None:
        labels = gpus(2, replicas=4, sharing_strategy="quantum")
        shows(read_node(node(labels, gpu=8)), mode="unknown", physical_gpus=2, whole_gpus=0, units={GPU: 8})

    def test_renamed_without_labels_may_be_either_kind_of_sharing(self) -> None:
        shows(
            read_node(node(resources={"gpu.shared": 10})),
            mode="unknown",
            physical_gpus=None,
            whole_gpus=0,
            units={SHARED: 10},
        )


class TestMigSingle:
    def test_valid(self) -> None:
        shows(
            read_node(node(sliced(56), gpu=56, allocatable={"gpu": 55})),
            mode="mig-single",
            physical_gpus=None,
            whole_gpus=0,
            memory_mib=None,
            units={GPU: 55},
            slices={GPU: Slice(56, 9728)},
            whole_resource=None,
            share_refusal="Mig",
        )

    def test_time_sliced_slices_are_counted_once(self) -> None:
        labels = sliced(7, replicas=4, sharing_strategy="time-slicing")
        labels |= {"gpu.product": f"{A100}-MIG-1g.10gb-SHARED"}
        shows(
            read_node(node(labels, gpu=28)),
            mode="mig-single+time-slicing",
            units={GPU: 28},
            slices={GPU: Slice(7, 9728)},
            share_refusal="Mig",
        )

    def test_time_sliced_and_renamed(self) -> None:
        labels = sliced(7, replicas=4, sharing_strategy="time-slicing")
        thing = node(labels, gpu=0, resources={"gpu.shared": 28})
        shows(
            read_node(thing),
            mode="mig-single+time-slicing",
            units={SHARED: 28},
            slices={GPU: Slice(7, 9728)},
        )

    def test_renamed_and_the_plugin_gone(self) -> None:
        labels = sliced(7, replicas=4, sharing_strategy="time-slicing")
        thing = node(labels, gpu=0, resources={"gpu.shared": 28}, allocatable={"gpu.shared": 0})
        shows(read_node(thing), slices={GPU: Slice(7, 9728)}, units={}, unusable="NoHealthyGpu")

    @pytest.mark.parametrize("leftover", [{}, {"gpu": 0}, {"gpu": 7}])
    def test_invalid(self, leftover: dict[str, int]) -> None:
        labels = gpus(0, 0, replicas=0, sharing_strategy="", product=f"{A100}-MIG-INVALID")
        shows(
            read_node(node(labels, resources=leftover)),
            product=f"{A100}-MIG-INVALID",
            mode="invalid",
            physical_gpus=None,
            whole_gpus=0,
            memory_mib=None,
            units={},
            slices={},
            share_refusal="Invalid",
        )

    def test_a_profile_of_size_0_is_a_name_not_a_size(self) -> None:
        labels = gpus(2, 20480, product="NVIDIA-Thor-MIG-1g.0gb")
        assert read_node(node(labels, gpu=2)).slices == {GPU: Slice(2, 20480)}


class TestMigMixed:
    def test_all_gpus_cut_count_means_parents(self) -> None:
        labels = mixed(1, replicas=0) | profile("1g.10gb", 5, 9728) | profile("2g.20gb", 1, 19968)
        shows(
            read_node(node(labels, gpu=0, resources={"mig-1g.10gb": 5, "mig-2g.20gb": 1})),
            mode="mig-mixed",
            physical_gpus=1,
            whole_gpus=0,
            memory_mib=81920,
            units={TEN: 5, TWENTY: 1},
            slices={TEN: Slice(5, 9728), TWENTY: Slice(1, 19968)},
            share_refusal="Mig",
        )

    def test_some_gpus_cut_the_others_take_shares(self) -> None:
        labels = mixed(8) | profile("1g.10gb", 14, 9728)
        shows(
            read_node(node(labels, gpu=6, resources={"mig-1g.10gb": 14})),
            mode="mig-mixed",
            physical_gpus=8,
            whole_gpus=6,
            memory_mib=81920,
            units={TEN: 14},
            slices={TEN: Slice(14, 9728)},
            whole_resource=GPU,
            share_refusal=None,
        )

    def test_some_gpus_cut_and_the_others_time_sliced(self) -> None:
        labels = mixed(8, replicas=2, sharing_strategy="time-slicing", product=f"{A100}-SHARED")
        labels |= profile("1g.10gb", 14, 9728)
        shows(
            read_node(node(labels, gpu=12, resources={"mig-1g.10gb": 14})),
            mode="mig-mixed+time-slicing",
            physical_gpus=8,
            whole_gpus=0,
            units={GPU: 12, TEN: 14},
            slices={TEN: Slice(14, 9728)},
        )

    def test_some_gpus_cut_and_the_others_shared_with_mps(self) -> None:
        labels = mixed(8, replicas=2, sharing_strategy="mps", product=f"{A100}-SHARED")
        labels |= profile("1g.10gb", 14, 9728)
        assert read_node(node(labels, gpu=12, resources={"mig-1g.10gb": 14})).mode == "mig-mixed+mps"

    @pytest.mark.parametrize("suffix", ["", ".shared"])
    def test_time_sliced_slices_whatever_the_resource_is_called(self, suffix: str) -> None:
        labels = mixed(1, replicas=0)
        labels |= profile("1g.10gb", 7, 9728, replicas=3, sharing_strategy="time-slicing")
        thing = node(labels, resources={"mig-1g.10gb": 0, f"mig-1g.10gb{suffix}": 21})
        shows(
            read_node(thing),
            mode="mig-mixed+time-slicing",
            physical_gpus=1,
            units={TEN + suffix: 21},
            slices={TEN: Slice(7, 9728)},
            share_refusal="Mig",
        )

    def test_slices_time_sliced_beside_whole_gpus_that_are_not(self) -> None:
        labels = mixed(2) | profile("1g.10gb", 7, 9728, replicas=3, sharing_strategy="time-slicing")
        shows(
            read_node(node(labels, gpu=1, resources={"mig-1g.10gb.shared": 21})),
            mode="mig-mixed+time-slicing",
            physical_gpus=2,
            whole_gpus=1,
            share_refusal=None,
        )

    @pytest.mark.parametrize("name", ["1g.24gb.me", "1g.24gb.me.all", "1g.24gb-me", "2g.48gb.gfx"])
    def test_profiles_with_suffixes(self, name: str) -> None:
        labels = mixed(1, replicas=0) | profile(name, 2, 23552)
        slices = read_node(node(labels, resources={f"mig-{name}": 2})).slices
        assert slices == {f"nvidia.com/mig-{name}": Slice(2, 23552)}

    def test_suffixed_profile_has_labels_of_its_own(self) -> None:
        labels = mixed(1, replicas=0) | profile("1g.5gb", 6, 4864) | profile("1g.5gb.me", 1, 4800)
        slices = read_node(node(labels, resources={"mig-1g.5gb": 6, "mig-1g.5gb.me": 1})).slices
        assert slices == {"nvidia.com/mig-1g.5gb": Slice(6, 4864), "nvidia.com/mig-1g.5gb.me": Slice(1, 4800)}

    @pytest.mark.parametrize(("media", "memory"), [(4864, 4864), (4800, None)])
    def test_plugins_before_0_20_merge_the_suffixed_profile(self, media: int, memory: int | None) -> None:
        labels = mixed(1, replicas=0) | profile("1g.5gb", 6, 4864) | profile("1g.5gb.me", 1, media)
        slices = read_node(node(labels, resources={"mig-1g.5gb": 7})).slices
        assert slices == {"nvidia.com/mig-1g.5gb": Slice(7, memory)}

    def test_more_slices_than_labelled_may_be_of_another_board(self) -> None:
        labels = mixed(1, replicas=0) | profile("1g.10gb", 4, 9984)
        assert read_node(node(labels, resources={"mig-1g.10gb": 11})).slices == {TEN: Slice(11, None)}

    def test_compute_instances_are_labelled_but_nobody_offers_them(self) -> None:
        labels = mixed(1, replicas=0) | profile("1c.3g.20gb", 3, 19968)
        shows(read_node(node(labels)), mode="mig-mixed", physical_gpus=1, slices={}, units={})

    def test_mig_mode_without_any_slice_yet(self) -> None:
        labels = mixed(8, replicas=0)
        shows(read_node(node(labels, gpu=0)), mode="mig-mixed", physical_gpus=8, whole_gpus=0, slices={})

    def test_former_slices_stay_as_capacity_for_minutes(self) -> None:
        thing = node(mixed(8), gpu=8, allocatable={"mig-1g.10gb": 0}, resources={"mig-1g.10gb": 7})
        shows(read_node(thing), mode="none", whole_gpus=8, slices={}, units={}, share_refusal=None)

    def test_unhealthy_slices_are_slices(self) -> None:
        labels = mixed(1, replicas=0) | profile("1g.10gb", 7, 9728)
        thing = node(labels, allocatable={"mig-1g.10gb": 0}, resources={"mig-1g.10gb": 7})
        shows(
            read_node(thing),
            mode="mig-mixed",
            slices={TEN: Slice(7, 9728)},
            units={},
            unusable="NoHealthyGpu",
        )

    def test_without_labels_the_resource_speaks_for_itself(self) -> None:
        shows(
            read_node(node(gpu=1, resources={"mig-1g.10gb": 7})),
            mode="mig-mixed",
            physical_gpus=None,
            whole_gpus=0,
            units={GPU: 1, TEN: 7},
            slices={TEN: Slice(7, None)},
        )

    def test_renamed_without_labels_hides_the_number_of_slices(self) -> None:
        shows(read_node(node(resources={"mig-1g.10gb.shared": 21})), slices={}, units={f"{TEN}.shared": 21})

    def test_single_and_mixed_at_once_is_a_contradiction(self) -> None:
        thing = node(sliced(7), gpu=7, resources={"mig-1g.10gb": 7})
        shows(read_node(thing), mode="unknown", whole_gpus=0, slices={}, units={GPU: 7, TEN: 7})


def test_mig_on_with_strategy_none_offers_gpus_that_are_none() -> None:
    """Each unit is a GPU in MIG mode: a container gets one slice of it, whichever."""
    labels = gpus(2, replicas=0)
    del labels["mig.strategy"]
    shows(
        read_node(node(labels, gpu=2)),
        mode="unknown",
        physical_gpus=2,
        whole_gpus=0,
        memory_mib=81920,
        units={GPU: 2},
        slices={},
        whole_resource=None,
        share_refusal="Mig",
    )
