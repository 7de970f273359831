"""What is left out of a pod is what nobody reads: every reader says the same of the whole pod and of what is kept."""

import json
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from extender.core import names
from extender.core.consistency import differences
from extender.core.decisions import Decisions, Policy
from extender.core.explain import explain, gather, judge
from extender.core.intree import blockers
from extender.core.nodereader import read_nodes
from extender.core.podreader import has_ended, is_reservation, pod_on_node, reservation_of, unbound_shares
from extender.core.requests import LIMITS, GpuRequest
from extender.core.unapplied import unapplied_rules
from extender.live.slim import slim
from extender.reflector import Reflector
from tests.builders import PodBuilder, make_node, make_pod
from tests.fixtures import BODIES

Json = dict[str, Any]
NODE = make_node("n").gpus(2, mib=1000).taint("nvidia.com/gpu", "present").label("zone", "a").build()


def as_the_api_shows_it(pod: Json) -> Json:
    """With everything that an API server and a kubelet add."""
    pod = json.loads(json.dumps(pod))
    pod["metadata"] |= {"managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}}]}
    pod["metadata"] |= {"generation": 1, "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "uid": "u"}]}
    pod["spec"] |= {"dnsPolicy": "ClusterFirst", "enableServiceLinks": True, "securityContext": {"runAsUser": 1}}
    for container in pod["spec"]["containers"]:
        container |= {
            "command": ["a"],
            "args": ["b"],
            "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}, *container.get("env", [])],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
            "securityContext": {"privileged": True},
            "terminationMessagePath": "/dev/termination-log",
        }
    pod["status"] |= {"hostIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}], "qosClass": "Burstable"}
    pod["status"] |= {"conditions": [{"type": "Ready", "status": "True"}], "startTime": "2026-09-14T08:30:00Z"}
    return pod


def running(pod: Json, *states: str) -> Json:
    """With the statuses of its containers."""
    listed = [{"name": f"c{i}", "state": {state: {}}, "image": "i", "imageID": "d"} for i, state in enumerate(states)]
    return pod | {"status": {**pod["status"], "containerStatuses": listed}}


def recorded(name: str) -> Json:
    pod: Json = json.loads((BODIES / name).read_bytes())["Pod"]
    return pod


def numbered(pod: Json, number: int) -> Json:
    """With a UID of its own, and but for reservation pods with a name too."""
    own = {"uid": f"u{number}"} if is_reservation(pod) else {"uid": f"u{number}", "name": f"p{number}"}
    return pod | {"metadata": pod["metadata"] | own}


def shared(asked: PodBuilder) -> Json:
    pod = asked.on_node("n").annotation(names.SHARED_GPUS, "share-1")
    pod.annotation(names.VISIBLE_DEVICES, "GPU-1").annotation(names.MEMORY_MIB, "400").annotation(names.TRY, "me-1")
    return pod.build()


def reservation() -> Json:
    pod = make_pod("share-1", names.RESERVATION_NAMESPACE).gpus(1).on_node("n").annotation(names.DEVICE, "GPU-1")
    pod.annotation(names.BOOT_ID, "b").metadata(deletionTimestamp="2026-09-14T09:00:00Z")
    return pod.annotation(names.DEVICE_MEMORY_MIB, "1000").build()


PREPARED = {variable: f"{key}.0" for variable, key in LIMITS.values()}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]
        },
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}],
    },
    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]},
    "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]},
}
PODS: Mapping[str, Json] = {
    "recorded by share": recorded("recorded-filter.json"),
    "recorded by whole": recorded("filter-whole-names.json"),
    "a share": shared(make_pod().gpu_memory(400)),
    "a share of another size than asked for": shared(make_pod().gpu_fraction("0.7")),
    "a share that nobody asked for": shared(make_pod().gpus(1)),
    "a reservation pod": reservation(),
    "ended": running(make_pod().gpus(1).on_node("n", "Failed").build(), "terminated"),
    "failed and still running": running(make_pod().gpus(1).on_node("n", "Failed").build(), "running"),
    "both sizes": make_pod().gpu_fraction("0.5").gpu_memory(5).build(),
    "a container that does not exist": make_pod().gpu_fraction("0.5").container_name("x").build(),
    "per container": make_pod().container("a").container("b").container_gpu_memory("b", limit="1Gi").build(),
    "init containers": make_pod()
    .init_container(requests={"cpu": "9"}, sidecar=True)
    .container(requests={"cpu": 2})
    .build(),
    "as a whole": make_pod().spec(resources={"requests": {"cpu": "3"}}, overhead={"memory": "1Gi"}).build(),
    "prepared": make_pod().gpu_memory(5).container().env("main", **PREPARED).build(),
    "negative": make_pod().container(requests={"cpu": "-1"}).build(),
    "selected": make_pod().spec(nodeSelector={"zone": "b"}, affinity=AFFINITY, schedulingGates=[{"name": "g"}]).build(),
    "tolerant": make_pod().spec(tolerations=[{"operator": "Exists"}]).build(),
    "tied": make_pod().spec(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]).build(),
    "spread": make_pod().spec(topologySpreadConstraints=[{"maxSkew": 1}], runtimeClassName="nvidia").build(),
    "claims": make_pod().spec(resourceClaims=[{"name": "c"}], workloadRef={"name": "w"}).build(),
    "the host's network": make_pod()
    .spec(containers=[{"name": "c", "ports": [{"containerPort": 80}]}], hostNetwork=True)
    .build(),
    "host port": make_pod().spec(containers=[{"name": "c", "ports": [{"hostPort": 80, "containerPort": 80}]}]).build(),
}
#: The API server lets none of these in; what lets them in must not make them look as if they asked for nothing.
MALFORMED: Mapping[str, Json] = {
    "no containers": make_pod().gpu_fraction("0.5").spec(containers="none").build(),
    "no status": {key: value for key, value in make_pod().gpus(1).on_node("n").build().items() if key != "status"},
    "no spec": make_pod().gpus(1).build() | {"spec": ["of another shape"]},
}


def said_of(pod: Json) -> Json:
    """What each reader says."""
    request = GpuRequest.from_pod(pod)
    resources = request.resources if isinstance(request, GpuRequest) else {}
    return {
        "request": request,
        "holding": pod_on_node(pod),
        "reservation": reservation_of(pod),
        "ended": has_ended(pod),
        "waiting": list(unbound_shares([pod])),
        "blockers": blockers(pod, NODE, {"cpu": 2000, "pods": 1}, resources),
        "unapplied": unapplied_rules(pod),
    }


def said_by_the_service(pods: list[Json]) -> Json:
    """Differences, explanations, and what filter and prioritize say to each."""
    decisions = Decisions(Policy(), claim_ttl=5, timer=lambda: 0.0)
    reflector = Reflector(decisions)
    reflector.nodes(read_nodes([NODE, make_node("m").gpus(2, mib=2000).build()]))
    reflector.pods(pods)
    said: Json = {"differences": differences(decisions.ledger, pods)}
    for number, pod in enumerate(pods):
        evidence = gather(decisions.ledger, pod, None)
        told = explain(evidence, list(judge(decisions, evidence)), {"n": NODE}.get)
        said[str(number)] = (told, decisions.filter(pod, ["n", "m"]), decisions.prioritize(pod, ["n", "m"]))
    return said


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_every_reader_says_the_same(pod: Json) -> None:
    whole = as_the_api_shows_it(pod)
    assert said_of(slim(whole)) == said_of(whole)


@pytest.mark.parametrize("pod", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_stays_so(pod: Json) -> None:
    assert said_of(slim(pod)) == said_of(pod)


def test_decisions_differences_and_explanations_are_the_same() -> None:
    whole = [as_the_api_shows_it(numbered(pod, number)) for number, pod in enumerate(PODS.values())]
    said = said_by_the_service(whole)
    kinds = {difference.kind for difference in said["differences"]}
    assert len(kinds) >= 3, "they must have something to differ in"
    assert said_by_the_service([slim(pod) for pod in whole]) == said


def test_what_pods_have_in_common_is_kept_once() -> None:
    one, other = (slim(as_the_api_shows_it(numbered(recorded("recorded-filter.json"), number))) for number in (1, 2))
    for part, key in (
        ("metadata", "labels"),
        ("spec", "containers"),
        ("spec", "tolerations"),
        ("status", "conditions"),
    ):
        assert one[part][key] is other[part][key], key
    assert one["metadata"]["annotations"] is not other["metadata"]["annotations"]


def test_why_a_container_or_a_pod_waits_stays_known_and_when_does_not() -> None:
    waiting = running(make_pod().on_node("n").build(), "waiting")
    waiting["status"]["containerStatuses"][0]["state"]["waiting"] = {"reason": "ImagePullBackOff", "message": "m"}
    since = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": "t"}
    waiting["status"]["conditions"] = [since]
    kept = slim(waiting)["status"]
    assert kept["containerStatuses"] == [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}}]
    assert kept["conditions"] == [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]


def test_volumes_that_tie_a_pod_to_nothing_are_left_out() -> None:
    """Each pod has one with a name of its own, so that no two would have theirs in common."""
    own: Json = {"name": "kube-api-access-x7k2p", "projected": {"sources": []}}
    tied: Json = {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}
    unheard_of: Json = {"name": "new", "comingInVersion99": {}}
    assert slim(make_pod().spec(volumes=[own, tied, unheard_of]).build())["spec"]["volumes"] == [tied, unheard_of]


def test_it_is_a_good_deal_smaller_and_the_pod_itself_stays_whole() -> None:
    whole = as_the_api_shows_it(recorded("recorded-filter.json"))
    before = orjson.dumps(whole)
    assert len(orjson.dumps(slim(whole))) < len(before) * 0.7
    assert orjson.dumps(whole) == before


def test_who_owns_a_pod_and_how_old_it_is_stay_known() -> None:
    kept = slim(as_the_api_shows_it(reservation()))["metadata"]
    assert {"ownerReferences", "creationTimestamp", "deletionTimestamp", "labels", "resourceVersion"} <= set(kept)
