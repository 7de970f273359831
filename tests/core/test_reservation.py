from typing import Any

from extender.core.reservation import GRACE_SECONDS, Template, reservation_name, reservation_pod

TEMPLATE = Template("gpu-scheduler", "gpu-extender:1")


def made(template: Template = TEMPLATE) -> dict[str, Any]:
    return reservation_pod("share-1", "node-1", "nvidia.com/gpu", template)


def agent(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["spec"]["containers"]
    return dict(container)


def test_a_name_is_never_used_twice() -> None:
    parts = [("n1", "p1", 0, 0), ("n2", "p1", 0, 0), ("n1", "p2", 0, 0), ("n1", "p1", 1, 0), ("n1", "p1", 0, 1)]
    assert len({reservation_name(*part) for part in parts}) == len(parts)
    assert reservation_name("n", "1p", 0, 0) != reservation_name("n1", "p", 0, 0)


def test_it_waits_for_its_node_and_survives_there() -> None:
    spec = made()["spec"]
    assert "nodeName" not in spec
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] == GRACE_SECONDS == 604_800


def test_it_asks_for_one_device_and_gets_what_it_asks_for() -> None:
    resources = agent(made())["resources"]
    assert resources["requests"] == resources["limits"] == {"cpu": "50m", "memory": "64Mi", "nvidia.com/gpu": "1"}


def test_the_container_gets_nvml_and_its_own_identity_and_no_other_device() -> None:
    entries = {entry["name"]: entry for entry in agent(made())["env"]}
    assert entries["NVIDIA_DRIVER_CAPABILITIES"]["value"] == "utility"
    assert "NVIDIA_VISIBLE_DEVICES" not in entries
    paths = {
        name: entry["valueFrom"]["fieldRef"]["fieldPath"] for name, entry in entries.items() if "valueFrom" in entry
    }
    assert paths == {
        "POD_NAMESPACE": "metadata.namespace",
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
    }


def test_the_root_file_system_stays_writable_for_the_hooks_of_cdi() -> None:
    assert "readOnlyRootFilesystem" not in agent(made())["securityContext"]


def test_a_runtime_class_and_an_owner_only_where_they_are_wanted() -> None:
    assert "runtimeClassName" not in made()["spec"]
    assert "ownerReferences" not in made()["metadata"]
    pod = made(Template("gpu-scheduler", "gpu-extender:1", "nvidia", ("reservations", "uid-1")))
    assert pod["spec"]["runtimeClassName"] == "nvidia"
    (owner,) = pod["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "ConfigMap",
        "reservations",
        "uid-1",
        True,
    )
