"""A pod that has nothing of ours is created whatever our policies say: none of them comes to judge it.

As the API server counts it. Of a policy whose conditions leave a request out, no expression is evaluated but these, and
of one whose selectors do, none at all.
"""

import re
from collections import Counter
from typing import Any, Final

import pytest

from extender.core import names
from tests.builders import PodBuilder, make_pod
from tests.controlplane.client import Client
from tests.controlplane.policies import what_if
from tests.manifests import of_kind

Json = dict[str, Any]
KINDS: Final = ("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy")
ORDINARY: Final = {
    "bare": make_pod(),
    "annotated": make_pod().annotation("example.com/a", "1").label("a", "b"),
    "with a whole GPU": make_pod().gpus(1),
    "with many annotations": make_pod().metadata(annotations={f"example.com/{i}": "x" for i in range(3000)}),
    "with our words in its values": make_pod().annotation("note", "gpu-fraction gpu-extender.io/shared-gpus"),
}


def looking() -> Counter[str]:
    """The policies that the creation of any pod in any namespace comes to; two may have one name."""
    found: Counter[str] = Counter()
    for kind in KINDS:
        unselective = [
            binding["spec"]["policyName"]
            for binding in of_kind(f"{kind}Binding")
            if "Selector" not in str(binding["spec"].get("matchResources"))
        ]
        for policy in of_kind(kind):
            matched = policy["spec"]["matchConstraints"]
            rules = [rule for rule in matched["resourceRules"] if "CREATE" in rule["operations"]]
            pods = any("pods" in rule["resources"] for rule in rules)
            if pods and "Selector" not in str(matched) and policy["metadata"]["name"] in unselective:
                found[policy["metadata"]["name"]] += 1
    return found


async def left_out(admin: Client) -> Counter[str]:
    """How many creations each policy's conditions have left out until now.

    The API server measures how long the conditions took where they left a request out or failed, and nowhere else; a
    failure would have refused it.
    """
    series = r"^apiserver_admission_match_condition_evaluation_seconds_count\{(.*)\} (\d+)$"
    counted: Counter[str] = Counter()
    for labels, value in re.findall(series, await admin.text("/metrics"), re.MULTILINE):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if named["operation"] == "CREATE" and named["kind"] == "policy":
            counted[named["name"]] += int(value)
    return counted


async def create(user: Client, pod: PodBuilder, namespace: str) -> None:
    built = pod.build()
    metadata = {**built["metadata"], "namespace": namespace}
    await user.post(what_if(namespace), {"metadata": metadata, "spec": built["spec"]})


@pytest.mark.parametrize("namespace", ["default", "kube-system"])
@pytest.mark.parametrize("ordinary", ORDINARY)
async def test_no_policy_judges_it(admin: Client, tenant: Client, namespace: str, ordinary: str) -> None:
    before = await left_out(admin)
    await create(tenant, ORDINARY[ordinary], namespace)
    assert await left_out(admin) - before == looking()
    assert looking().total() == 2


async def test_a_share_pod_is_judged(admin: Client, tenant: Client) -> None:
    """So the count above means something."""
    before = await left_out(admin)
    await create(tenant, make_pod().annotation(names.GPU_MEMORY, "1"), "default")
    assert await left_out(admin) - before == Counter()
