"""Nodes that take nothing now, nodes for virtual machines, and what an administrator forbids."""

from typing import Any

import pytest

from extender.core.inventory import REASON_TEXT, Inventory, read_node
from tests.core.node_cases import gpus, node

VGPU, T4 = "nvidia.com/NVIDIA_A10-12Q", "nvidia.com/GRID_T4-2Q"


def shows(inventory: Inventory, **expected: Any) -> None:
    assert {name: getattr(inventory, name) for name in expected} == expected


def taint(key: str, effect: str = "NoSchedule") -> dict[str, Any]:
    return {"taints": [{"key": key, "effect": effect}]}


class TestUnusable:
    @pytest.mark.parametrize("ready", ["False", "Unknown"])
    def test_not_ready(self, ready: str) -> None:
        shows(
            read_node(node(gpus(8), gpu=8, ready=ready)),
            unusable="NotReady",
            physical_gpus=8,
            whole_gpus=0,
            memory_mib=81920,
            # Pods that hold its GPUs must still be counted.
            whole_resource="nvidia.com/gpu",
            share_refusal="NotReady",
        )

    def test_a_node_without_conditions_is_taken_for_ready(self) -> None:
        shows(read_node(node(gpus(8), gpu=8, ready=None)), unusable=None, whole_gpus=8)

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ({"unschedulable": True}, "Cordoned"),
            (taint("node.kubernetes.io/unschedulable"), "Cordoned"),
            (taint("node.kubernetes.io/not-ready", "NoExecute"), "NotReady"),
            (taint("node.kubernetes.io/unreachable"), "NotReady"),
            (taint("node.kubernetes.io/unreachable") | {"unschedulable": True}, "NotReady"),
            (taint("nvidia.com/gpu"), None),
            (taint("node.kubernetes.io/unschedulable", "PreferNoSchedule"), None),
            ({"unschedulable": False}, None),
        ],
    )
    def test_spec(self, spec: dict[str, Any], why: str | None) -> None:
        shows(read_node(node(gpus(8), gpu=8, spec=spec)), unusable=why, whole_gpus=0 if why else 8)

    @pytest.mark.parametrize(
        ("label", "value", "why"),
        [
            ("mig.config.state", "pending", "MigReconfiguring"),
            ("mig.config.state", "rebooting", "MigReconfiguring"),
            ("mig.config.state", "success", None),
            ("mig.config.state", "failed", None),
            ("mig.config", "all-1g.10gb", None),  # a wish
            ("gpu.deploy.device-plugin", "paused-for-mig-change", "MigReconfiguring"),
            ("gpu.deploy.device-plugin", "true", None),
            ("gpu.deploy.dcgm", "paused-for-driver-upgrade", "DriverUpgrading"),
            ("gpu.deploy.device-plugin", "paused-for-lunch", "GpuStackPaused"),
            ("gpu-driver-upgrade-state", "upgrade-done", None),
            ("gpu-driver-upgrade-state", "upgrade-required", None),
            ("gpu-driver-upgrade-state", "pod-restart-required", "DriverUpgrading"),
            ("gpu-driver-upgrade-state", "upgrade-failed", "DriverUpgrading"),
            ("vgpu.config.state", "pending", "VgpuReconfiguring"),
        ],
    )
    def test_label(self, label: str, value: str, why: str | None) -> None:
        inventory = read_node(node(gpus(8) | {label: value}, gpu=8))
        shows(inventory, unusable=why, whole_gpus=0 if why else 8, share_refusal=why)

    def test_a_deletion_that_waits(self) -> None:
        thing = node(gpus(8), gpu=8)
        thing["metadata"]["deletionTimestamp"] = "2026-09-14T08:30:00Z"
        shows(read_node(thing), unusable="Deleting", whole_gpus=0)

    def test_a_node_without_gpus_may_be_unusable_too(self) -> None:
        inventory = read_node(node(ready="False"))
        shows(inventory, mode="none", physical_gpus=0, unusable="NotReady", share_refusal="NoGpu")


class TestVirtualMachines:
    def test_vgpu_host(self) -> None:
        thing = node({"gpu.present": "true", "gpu.workload.config": "vm-vgpu"}, resources={"NVIDIA_A10-12Q": 4})
        shows(
            read_node(thing),
            mode="vgpu-host",
            physical_gpus=None,
            whole_gpus=0,
            memory_mib=None,
            units={VGPU: 4},
            slices={},
            whole_resource=None,
            share_refusal="VgpuHost",
        )

    @pytest.mark.parametrize(
        "name", ["NVIDIA_A10-12Q", "GRID_T4-2Q", "GRID_A100-1-5CME", "NVIDIA_H200-1-18C", "GRID_V100-0B"]
    )
    def test_vgpu_host_by_the_names_alone(self, name: str) -> None:
        shows(read_node(node(resources={name: 4})), mode="vgpu-host", units={f"nvidia.com/{name}": 4})

    def test_vgpu_host_with_a_name_of_the_administrators_choice(self) -> None:
        thing = node({"gpu.workload.config": "vm-vgpu"}, resources={"desktop-gpu": 4})
        shows(read_node(thing), mode="vgpu-host", units={"nvidia.com/desktop-gpu": 4})

    def test_vgpu_host_before_its_plugin_has_started(self) -> None:
        shows(
            read_node(node({"gpu.workload.config": "vm-vgpu"})),
            mode="vgpu-host",
            physical_gpus=None,
            units={},
        )

    @pytest.mark.parametrize("labels", [{}, {"gpu.workload.config": "vm-passthrough", "gpu.present": "true"}])
    @pytest.mark.parametrize("name", ["GA102GL_A10", "TU104GL_TESLA_T4", "GH100_H100_SXM5_80GB", "20b5"])
    def test_passthrough(self, labels: dict[str, object], name: str) -> None:
        shows(
            read_node(node(labels, resources={name: 2})),
            mode="passthrough",
            physical_gpus=2,
            whole_gpus=0,
            memory_mib=None,
            units={},
            whole_resource=None,
            share_refusal="Passthrough",
        )

    def test_passthrough_of_two_models(self) -> None:
        assert read_node(node(GA102GL_A10=2, TU104GL_TESLA_T4=1)).physical_gpus == 3

    def test_passthrough_under_a_name_that_tells_nothing_proves_no_number(self) -> None:
        thing = node({"gpu.workload.config": "vm-passthrough"}, resources={"my-gpu": 2})
        shows(read_node(thing), mode="passthrough", physical_gpus=None)

    def test_switches_are_no_gpus(self) -> None:
        assert read_node(node(GH100_H100_SXM5_80GB=8, GH100_H100_NVSWITCH=4)).physical_gpus == 8

    def test_network_cards_of_an_unlabelled_node_do_not_hide_its_gpus(self) -> None:
        shows(read_node(node(GA102GL_A10=2, hostdev=8)), mode="passthrough", physical_gpus=2)

    def test_both_kinds(self) -> None:
        inventory = read_node(node(resources={"GA102GL_A10": 2, "GRID_T4-2Q": 8}))
        shows(inventory, mode="vgpu-host+passthrough", physical_gpus=None, units={T4: 8})

    def test_a_former_vm_resource_at_0_proves_nothing(self) -> None:
        shows(read_node(node(gpus(2), gpu=2, GA102GL_A10=0)), mode="none", whole_gpus=2)

    def test_back_to_containers_the_former_resource_keeps_its_capacity_for_minutes(self) -> None:
        labels = gpus(2) | {"gpu.workload.config": "container"}
        thing = node(labels, gpu=2, allocatable={"GA102GL_A10": 0}, GA102GL_A10=2)
        shows(read_node(thing), mode="none", whole_gpus=2)

    def test_two_plugins_at_once_prove_nothing(self) -> None:
        inventory = read_node(node(gpus(2), gpu=2, resources={"GRID_T4-2Q": 8}))
        shows(inventory, mode="unknown", whole_gpus=0, units={"nvidia.com/gpu": 2, T4: 8})

    def test_the_label_decides_while_the_plugin_for_containers_still_runs(self) -> None:
        labels = gpus(2) | {"gpu.workload.config": "vm-passthrough"}
        shows(read_node(node(labels, gpu=2)), mode="passthrough", whole_gpus=0, share_refusal="Passthrough")

    def test_a_guest_of_a_vgpu_host_has_whole_gpus_of_its_framebuffer(self) -> None:
        labels = gpus(1, 10240, product="GRID-A100-1-10C") | {
            "vgpu.present": "true",
            "vgpu.host-driver-version": "595.71.03",
        }
        shows(read_node(node(labels, gpu=1)), mode="none", whole_gpus=1, memory_mib=10240, share_refusal=None)


class TestSharingDisabled:
    @pytest.mark.parametrize("value", ["disabld", "Disabled", "false", "enable", ""])
    def test_any_value_but_the_two_keeps_shares_off(self, value: str) -> None:
        shows(
            read_node(node(gpus(8) | {"gpu-extender.io/sharing": value}, gpu=8)),
            whole_gpus=8,
            share_refusal="SharingDisabled",
        )

    def test_whole_gpus_stay(self) -> None:
        labels = gpus(8) | {"gpu-extender.io/sharing": "disabled"}
        shows(read_node(node(labels, gpu=8)), whole_gpus=8, share_refusal="SharingDisabled")

    def test_enabled_refuses_nothing(self) -> None:
        labels = gpus(8) | {"gpu-extender.io/sharing": "enabled"}
        assert read_node(node(labels, gpu=8)).share_refusal is None


def test_reasons_are_constants_that_differ() -> None:
    assert len(set(REASON_TEXT.values())) == len(REASON_TEXT)
    assert not any(character.isdigit() for text in REASON_TEXT.values() for character in text)
