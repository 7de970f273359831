"""The ledger against a slow, obviously right model: random operations, both checked after every step."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from extender.core.errors import LedgerError
from extender.core.ledger import Ledger
from extender.core.nodereader import read_nodes
from extender.core.placement import Placement, Shortfall, fit
from extender.core.requests import GpuRequest
from extender.core.values import Node, PodOnNode, ShareOnGpu, ShareState
from tests.builders import make_node, make_pod

CARD = 1000
NODES = ("n1", "n2")


@dataclass
class ModelGpu:
    node: str
    #: pod UID → MiB
    shares: dict[str, int] = field(default_factory=dict)


@dataclass
class Model:
    """Lists and sums, nothing clever."""

    gpus_of: dict[str, int] = field(default_factory=dict)
    shared: dict[str, ModelGpu] = field(default_factory=dict)
    #: pod UID → (node, number of whole GPUs)
    whole: dict[str, tuple[str, int]] = field(default_factory=dict)

    def whole_free(self, node: str) -> int:
        held = sum(count for where, count in self.whole.values() if where == node)
        shared = sum(gpu.node == node for gpu in self.shared.values())
        return max(0, self.gpus_of[node] - held - shared)

    def roomy(self, node: str, mib: int) -> int:
        return sum(gpu.node == node and CARD - sum(gpu.shares.values()) >= mib for gpu in self.shared.values())

    def fits(self, node: str, mib: int, devices: int) -> bool:
        if devices > self.gpus_of[node] or mib > CARD:
            return False
        return self.roomy(node, mib) + self.whole_free(node) >= devices

    def drop(self, uid: str) -> None:
        self.whole.pop(uid, None)
        for gpu in self.shared.values():
            gpu.shares.pop(uid, None)


def node_of(name: str, gpus: int) -> Node:
    [node] = read_nodes([make_node(name).gpus(gpus, mib=CARD).build()])
    return node


def request_of(pod: dict[str, Any]) -> GpuRequest:
    request = GpuRequest.from_pod(pod)
    assert isinstance(request, GpuRequest)
    return request


class LedgerMachine(RuleBasedStateMachine):
    pods: Bundle[str] = Bundle("pods")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.model = Model()
        self.count = 0

    @initialize(first=st.integers(0, 3), second=st.integers(0, 3))
    def cluster(self, first: int, second: int) -> None:
        for name, gpus in zip(NODES, (first, second), strict=True):
            self.model.gpus_of[name] = gpus
            self.ledger.put_node(node_of(name, gpus))

    def new_uid(self) -> str:
        self.count += 1
        return f"pod-{self.count}"

    @rule(target=pods, node=st.sampled_from(NODES), mib=st.integers(1, CARD + 1), devices=st.integers(1, 3))
    def assume_share(self, node: str, mib: int, devices: int) -> str:
        uid = self.new_uid()
        request = request_of(make_pod(uid).gpu_memory(mib).num_devices(devices).build())
        state = self.ledger.state(node)
        assert state is not None
        verdict = fit(state, request)
        assert isinstance(verdict, Placement) == self.model.fits(node, mib, devices)
        if isinstance(verdict, Shortfall):
            return uid
        assert len(verdict.on) == min(devices, self.model.roomy(node, mib)), "open only what is needed"
        new_ids = [f"{uid}-{index}" for index in range(verdict.new)]
        self.ledger.assume(
            uid=uid, namespace="d", name=uid, node=node, request=request, placement=verdict, new_ids=new_ids
        )
        for gpu_id in new_ids:
            self.model.shared[gpu_id] = ModelGpu(node)
        for gpu_id in [gpu.id for gpu in verdict.on] + new_ids:
            self.model.shared[gpu_id].shares[uid] = mib
        return uid

    @rule(target=pods, node=st.sampled_from(NODES), count=st.integers(1, 3))
    def assume_whole(self, node: str, count: int) -> str:
        uid = self.new_uid()
        request = request_of(make_pod(uid).container("c", limits={"nvidia.com/gpu": count}).build())
        state = self.ledger.state(node)
        assert state is not None
        verdict = fit(state, request)
        assert isinstance(verdict, Placement) == (count <= self.model.whole_free(node))
        if isinstance(verdict, Placement):
            self.ledger.assume(uid=uid, namespace="d", name=uid, node=node, request=request, placement=verdict)
            self.model.whole[uid] = (node, count)
        return uid

    @rule(target=pods, node=st.sampled_from(NODES), count=st.integers(1, 4))
    def foreign_whole_pod(self, node: str, count: int) -> str:
        """Somebody else bound it: it counts, even where it cannot be true."""
        uid = self.new_uid()
        self.ledger.observe(PodOnNode(uid, "d", uid, node, {"nvidia.com/gpu": count}, observed=True))
        self.model.whole[uid] = (node, count)
        return uid

    @rule(target=pods, node=st.sampled_from(NODES), mib=st.integers(1, 2 * CARD), data=st.data())
    def foreign_share(self, node: str, mib: int, data: st.DataObject) -> str:
        """Another extender bound it onto a GPU that exists; evidence may exceed the card."""
        ids = sorted(gpu_id for gpu_id, gpu in self.model.shared.items() if gpu.node == node)
        uid = self.new_uid()
        if ids:
            gpu_id = data.draw(st.sampled_from(ids))
            shares = (ShareOnGpu(gpu_id, None, mib),)
            self.ledger.observe(PodOnNode(uid, "d", uid, node, {}, shares, observed=True))
            self.model.shared[gpu_id].shares[uid] = mib
        return uid

    @rule(uid=pods)
    def confirm(self, uid: str) -> None:
        if self.ledger.pod(uid) is None:
            with pytest.raises(LedgerError):
                self.ledger.confirm(uid)
            return
        self.ledger.confirm(uid)
        pod = self.ledger.pod(uid)
        assert pod is not None
        assert pod.state is ShareState.CONFIRMED

    @rule(uid=pods)
    def record(self, uid: str) -> None:
        pod = self.ledger.pod(uid)
        if pod is not None and pod.state is ShareState.ASSUMED:
            self.ledger.record(uid)
        else:
            with pytest.raises(LedgerError):
                self.ledger.record(uid)

    @rule(uid=pods)
    def seen_by_the_watch(self, uid: str) -> None:
        pod = self.ledger.pod(uid)
        if pod is not None:
            shown = PodOnNode(uid, "d", uid, pod.node, pod.resources, pod.shares, pod.compute_mode, observed=True)
            self.ledger.observe(shown)

    @rule(uid=pods)
    def forget(self, uid: str) -> None:
        pod = self.ledger.pod(uid)
        if pod is not None and pod.state is ShareState.CONFIRMED:
            with pytest.raises(LedgerError):
                self.ledger.forget(uid)
            return
        self.ledger.forget(uid)
        if pod is not None:
            self.model.drop(uid)
            # GPUs planned for it alone are no longer planned.
            for share in pod.shares:
                if not self.model.shared[share.gpu_id].shares:
                    del self.model.shared[share.gpu_id]

    @rule(uid=consumes(pods))
    def release(self, uid: str) -> None:
        self.ledger.release(uid)
        self.ledger.release(uid)
        self.model.drop(uid)

    @rule(node=st.sampled_from(NODES))
    def close_empty(self, node: str) -> None:
        empty = [i for i, gpu in self.model.shared.items() if gpu.node == node and not gpu.shares]
        for gpu_id in empty:
            self.ledger.drop_reservation(node, gpu_id)
            del self.model.shared[gpu_id]

    @rule(node=st.sampled_from(NODES), gpus=st.integers(0, 4))
    def node_changes(self, node: str, gpus: int) -> None:
        self.model.gpus_of[node] = gpus
        self.ledger.put_node(node_of(node, gpus))

    @rule(node=st.sampled_from(NODES))
    def node_comes_and_goes(self, node: str) -> None:
        state = self.ledger.state(node)
        assert state is not None
        self.ledger.drop_node(node)
        assert self.ledger.state(node) is None
        self.ledger.put_node(state.node)

    @rule()
    def relist(self) -> None:
        """Rebuilt from what exists, the ledger is the same as after all those events."""
        rebuilt = Ledger()
        for node in NODES:
            state = self.ledger.state(node)
            assert state is not None
            rebuilt.put_node(state.node)
            for reservation in self.ledger.reservations(node):
                rebuilt.put_reservation(reservation)
            for pod in reversed(self.ledger.pods(node)):
                rebuilt.observe(pod)
        for node in NODES:
            assert rebuilt.state(node) == self.ledger.state(node)

    @invariant()
    def holds(self) -> None:
        self.ledger.check()

    @invariant()
    def agrees_with_the_model(self) -> None:
        for node in self.model.gpus_of:
            state = self.ledger.state(node)
            assert state is not None
            assert state.whole_free == self.model.whole_free(node)
            assert {gpu.id: {share.uid: share.mib for share in gpu.shares} for gpu in state.gpus} == {
                gpu_id: gpu.shares for gpu_id, gpu in self.model.shared.items() if gpu.node == node
            }


LedgerMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedgerModel = LedgerMachine.TestCase
