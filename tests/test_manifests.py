"""The manifests agree with the code and with each other. What the API server says of them: tests/controlplane."""

import copy
import re
from pathlib import Path
from shutil import copytree
from typing import Any, Final

import pytest
import yaml

from extender.config import ENVIRONMENT_PREFIX, Settings
from extender.core import names, reservation
from extender.core.reservation import Template, reservation_pod
from extender.elector import LEASE
from extender.pokes import PAUSE
from extender.server import GRACE
from tests.manifests import BASE, OVERLAYS, container, objects, of_kind, one, rights, scheduler_configuration
from tests.test_docs import read, rows

PAGE: Final = "docs/operations.md"
EXTENDER, SCHEDULER, RESERVATIONS = "gpu-extender", "gpu-extender", names.RESERVATION_NAMESPACE
DEFAULTS = Settings()


def seconds(duration: str) -> float:
    (amount,) = re.fullmatch(r"([0-9.]+)s", duration).groups()  # type: ignore[union-attr]
    return float(amount)


def environment(folder: Path = BASE) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in container("extender", folder)["env"]}


def extender() -> dict[str, Any]:
    (found,) = scheduler_configuration()["extenders"]
    return dict(found)


# --- kube-scheduler and the service -------------------------------------------------------------------------


def test_kube_scheduler_waits_longer_than_a_bind_may_take() -> None:
    assert seconds(extender()["httpTimeout"]) > DEFAULTS.bind_timeout + 2
    timeout = environment().get(f"{ENVIRONMENT_PREFIX}BIND_TIMEOUT")
    assert timeout is None or seconds(extender()["httpTimeout"]) > float(timeout) + 2


def test_kube_scheduler_asks_where_the_service_listens() -> None:
    assert extender()["urlPrefix"] == f"http://{DEFAULTS.host}:{DEFAULTS.port}/scheduler"
    assert DEFAULTS.host == "127.0.0.1"
    for variable in ("HOST", "PORT"):
        assert f"{ENVIRONMENT_PREFIX}{variable}" not in environment()


def test_kube_scheduler_calls_all_four_verbs_for_every_pod() -> None:
    verbs = {verb: extender()[f"{verb}Verb"] for verb in ("filter", "prioritize", "preempt", "bind")}
    assert all(verb == path for verb, path in verbs.items())
    assert extender()["nodeCacheCapable"] is True
    assert extender()["ignorable"] is False  # beside bindVerb it would bind without devices
    assert "managedResources" not in extender()  # shares ask by annotation


def test_a_pod_that_failed_just_before_a_share_became_free_is_tried_within_five_seconds() -> None:
    window = 1.0  # kube-scheduler's queue moves pods once a second
    assert scheduler_configuration()["podMaxBackoffSeconds"] + window + 2 * PAUSE < 5


def test_the_lease_is_the_one_that_the_extender_may_write() -> None:
    granted = {
        (where, name)
        for where, verb, resource, name in rights("gpu-extender", EXTENDER)
        if (verb, resource) == ("update", "leases")
    }
    assert granted == {(EXTENDER, LEASE)}


def test_one_step_of_our_score_outweighs_the_in_tree_sum() -> None:
    in_tree = 100 * (3 + 2 + 2 + 2 + 1 + 1 + 1)  # highest score × default weights
    assert extender()["weight"] * 10 > in_tree
    assert environment()["GPU_EXTENDER_SHORTLIST"] == "1", "what can never be chosen need not be named"


def test_every_node_is_seen_by_the_one_profile() -> None:
    (profile,) = scheduler_configuration()["profiles"]
    assert profile == {"schedulerName": "gpu-scheduler", "percentageOfNodesToScore": 100}


def test_probes_and_scrapes_go_to_the_observe_listener() -> None:
    ports = {port["name"]: port["containerPort"] for port in container("extender")["ports"]}
    assert ports == {"observe": int(environment()["GPU_EXTENDER_OBSERVE_PORT"])}
    assert ports["observe"] != DEFAULTS.port
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container("extender")[probe]["httpGet"] == {"path": path, "port": "observe"}
    template = one("Deployment", "gpu-extender", "gpu-extender")["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(ports["observe"])
    assert template["spec"]["terminationGracePeriodSeconds"] > GRACE


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS], ids=lambda folder: folder.name)
def test_every_variable_is_a_setting_and_readable(folder: Path) -> None:
    given = {key.removeprefix(ENVIRONMENT_PREFIX).lower(): value for key, value in environment(folder).items()}
    assert set(given) <= set(Settings.model_fields)
    Settings.model_validate({name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS], ids=lambda folder: folder.name)
def test_reservation_pods_run_the_image_of_the_service(folder: Path) -> None:
    assert environment(folder)["GPU_EXTENDER_AGENT_IMAGE"] == container("extender", folder)["image"]
    assert ":" in container("extender", folder)["image"]


# --- names --------------------------------------------------------------------------------------------------


def test_what_a_reservation_pod_names_is_there() -> None:
    pod = reservation_pod("share-1", "node-1", "nvidia.com/gpu", Template("gpu-scheduler", "gpu-extender:0.1.0"))
    spec = pod["spec"]
    one("Namespace", pod["metadata"]["namespace"])
    one("ServiceAccount", spec["serviceAccountName"], RESERVATIONS)
    one("ConfigMap", reservation.OWNER, RESERVATIONS)
    assert spec["schedulerName"] == scheduler_configuration()["profiles"][0]["schedulerName"]
    assert spec["securityContext"]["runAsUser"] == reservation.NOBODY
    priority = one("PriorityClass", spec["priorityClassName"])
    assert priority["preemptionPolicy"] == "Never"
    assert priority["value"] < one("PriorityClass", "gpu-extender")["value"] <= 1_000_000_000


def test_the_lease_is_the_one_that_the_scheduler_may_write() -> None:
    election = scheduler_configuration()["leaderElection"]
    lease = (election["resourceNamespace"], election["resourceName"])
    granted = {
        (where, name) for where, _, resource, name in rights("gpu-scheduler", "gpu-extender") if resource == "leases"
    }
    assert granted == {lease}


def test_every_selector_selects_the_pods_of_the_deployment() -> None:
    labels = one("Deployment", "gpu-extender", "gpu-extender")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        one("Service", "gpu-extender", "gpu-extender")["spec"]["selector"],
        one("PodDisruptionBudget", "gpu-extender", "gpu-extender")["spec"]["selector"]["matchLabels"],
        one("Deployment", "gpu-extender", "gpu-extender")["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels


def test_the_image_is_of_this_version() -> None:
    from importlib.metadata import version

    assert container("extender")["image"] == f"gpu-extender:{version('gpu-extender')}"


def test_kube_scheduler_is_the_version_that_the_tests_run() -> None:
    from tests.controlplane.build import KUBERNETES

    assert container("kube-scheduler")["image"].endswith(f":{KUBERNETES}")


# --- rights -------------------------------------------------------------------------------------------------

READ = ("get", "list", "watch")


def test_the_extender_may_do_exactly_this() -> None:
    everywhere = {
        *((verb, "pods") for verb in (*READ, "patch")),
        ("create", "pods/binding"),
        *((verb, "nodes") for verb in ("list", "watch", "patch")),
        *((verb, resource) for verb in ("list", "watch") for resource in ("resourceslices", "resourceclaims")),
        ("create", "events"),
    }
    ours = {("create", "leases", None), ("get", "leases", "gpu-extender"), ("update", "leases", "gpu-extender")}
    reservations = {
        *((verb, "pods") for verb in ("create", "delete")),
        *((verb, "configmaps") for verb in (*READ, "create", "update")),
    }
    assert set(rights("gpu-extender", EXTENDER)) == {
        *((None, *right, None) for right in everywhere),
        *(("gpu-extender", *right) for right in ours),
        *((RESERVATIONS, *right, None) for right in reservations),
    }


def test_an_agent_may_read_and_annotate_reservation_pods_and_nothing_else() -> None:
    assert set(rights(reservation.SERVICE_ACCOUNT, RESERVATIONS)) == {
        (RESERVATIONS, "get", "pods", None),
        (RESERVATIONS, "patch", "pods", None),
    }


def test_no_role_has_a_wildcard() -> None:
    for role in (*of_kind("Role"), *of_kind("ClusterRole")):
        for rule in role["rules"]:
            assert not any("*" in entry for entries in rule.values() for entry in entries), role["metadata"]["name"]


def test_each_container_has_the_token_of_its_own_account_only() -> None:
    spec = one("Deployment", "gpu-extender", "gpu-extender")["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == "gpu-extender"
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounted = {
        found["name"]: [mount["name"] for mount in found["volumeMounts"] if "serviceaccount" in mount["mountPath"]]
        for found in spec["containers"]
    }
    assert mounted == {"extender": ["extender-account"], "kube-scheduler": ["scheduler-account"]}
    assert "serviceAccountToken" in volumes["extender-account"]["projected"]["sources"][0]
    secret = one("Secret", volumes["scheduler-account"]["secret"]["secretName"], "gpu-extender")
    assert secret["metadata"]["annotations"] == {"kubernetes.io/service-account.name": "gpu-scheduler"}
    for account in of_kind("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_every_file_of_the_base_is_used() -> None:
    kustomization = (BASE / "kustomization.yaml").read_text("utf-8")
    for file in BASE.iterdir():
        assert file.name == "kustomization.yaml" or f"- {file.name}\n" in kustomization, file.name
    assert len(objects()) > 20


# --- variants -----------------------------------------------------------------------------------------------


POLICIES: Final = ("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy")


@pytest.mark.parametrize("kind", POLICIES)
def test_what_a_policy_cannot_judge_is_refused(kind: str) -> None:
    """The API server's default too, but nobody should have to know that; and each of them is bound, to deny."""
    policies = of_kind(kind)
    assert [policy["metadata"]["name"] for policy in policies if policy["spec"]["failurePolicy"] != "Fail"] == []
    bindings = of_kind(f"{kind}Binding")
    names_of = sorted(policy["metadata"]["name"] for policy in policies)
    assert sorted(binding["spec"]["policyName"] for binding in bindings) == names_of != []
    if kind == "ValidatingAdmissionPolicy":
        assert {tuple(binding["spec"]["validationActions"]) for binding in bindings} == {("Deny",)}


def overlay(name: str) -> Path:
    return BASE.parent / "overlays" / name


def test_the_variants_differ_from_the_base_where_they_say() -> None:
    single = overlay("single-replica")
    assert one("Deployment", "gpu-extender", "gpu-extender", single)["spec"]["replicas"] == 1
    assert of_kind("PodDisruptionBudget", single) == []
    (monitor,) = of_kind("PodMonitor", overlay("prometheus-operator"))
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in {p["name"] for p in container("extender")["ports"]}
    older = overlay("validating-only")
    assert of_kind("MutatingAdmissionPolicy", older) == of_kind("MutatingAdmissionPolicyBinding", older) == []
    assert of_kind("ValidatingAdmissionPolicy", older) == of_kind("ValidatingAdmissionPolicy")
    expected = copy.deepcopy(of_kind("ValidatingAdmissionPolicyBinding"))
    (settings,) = (binding for binding in expected if binding["metadata"]["name"] == "gpu-extender-settings")
    assert settings["spec"].pop("matchResources") == {"objectSelector": {"matchLabels": {names.SHARE_LABEL: "true"}}}
    assert of_kind("ValidatingAdmissionPolicyBinding", older) == expected
    variants = {"cdi", "runtime-class-nvidia", "single-replica", "prometheus-operator", "validating-only"}
    assert {folder.name for folder in OVERLAYS} == variants


@pytest.mark.parametrize(
    ("folder", "of_share_pods", "of_reservation_pods"),
    [(BASE, "", None), (overlay("cdi"), "nvidia", None), (overlay("runtime-class-nvidia"), "nvidia", "nvidia")],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_a_runtime_class_is_asked_for_where_the_nodes_need_it(
    folder: Path, of_share_pods: str, of_reservation_pods: str | None
) -> None:
    expected = {**one("ConfigMap", "gpu-extender-admission", "gpu-extender")["data"], "runtime-class": of_share_pods}
    assert one("ConfigMap", "gpu-extender-admission", "gpu-extender", folder)["data"] == expected
    assert environment(folder).get("GPU_EXTENDER_AGENT_RUNTIME_CLASS") == of_reservation_pods
    rest = [found for found in objects(folder) if found["kind"] not in ("ConfigMap", "Deployment")]
    assert rest == [found for found in objects() if found["kind"] not in ("ConfigMap", "Deployment")]


def test_every_variant_is_told_on_the_page_that_installs() -> None:
    assert {folder.name for folder in OVERLAYS} == {cells[0].strip("`") for cells in rows(PAGE, "## Install")}


def test_the_kustomization_of_the_page_sets_the_images_of_all_pods(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(# kustomization.yaml.*?)```", read(PAGE), re.S)
    (tmp_path / "kustomization.yaml").write_text(text)
    copytree(BASE.parent, tmp_path / "manifests")
    (extender, scheduler) = (entry for entry in yaml.safe_load(text)["images"])
    assert container("extender", tmp_path)["image"].startswith(extender["newName"] + ":")
    assert container("extender", tmp_path)["image"] == environment(tmp_path)["GPU_EXTENDER_AGENT_IMAGE"]
    assert container("kube-scheduler", tmp_path)["image"] == f"{scheduler['name']}:{scheduler['newTag']}"
    assert of_kind("MutatingAdmissionPolicy", tmp_path) == []
