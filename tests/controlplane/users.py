"""Who may talk to a control plane: static tokens, and a kubeconfig for each user."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class User:
    """A user as the API server sees him: a name and groups; his rights are RBAC's business."""

    name: str
    groups: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(16), compare=False)

    @classmethod
    def service_account(cls, namespace: str, name: str) -> "User":
        """What a pod with that service account is."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return cls(f"system:serviceaccount:{namespace}:{name}", groups)


#: May do everything.
ADMIN: Final = User("admin", ("system:masters",))
#: The API server itself gives that name the rights of the real kube-scheduler.
SCHEDULER: Final = User("system:kube-scheduler")
EXTENDER: Final = User.service_account("gpu-extender", "gpu-extender")
#: kube-controller-manager itself, which gets each of its controllers a token of the account of its own.
CONTROLLER_MANAGER: Final = User("system:kube-controller-manager")
#: A tenant; ``ControlPlane.grant`` gives him a role.
TENANT: Final = User("tenant")
#: The kubelet of node-1.
KUBELET: Final = User("system:node:node-1", ("system:nodes",))
#: Accounts of kube-controller-manager; the API server itself gives these names their rights.
POD_GC: Final = User.service_account("kube-system", "pod-garbage-collector")
GARBAGE_COLLECTOR: Final = User.service_account("kube-system", "generic-garbage-collector")
NAMESPACE_CONTROLLER: Final = User.service_account("kube-system", "namespace-controller")
USERS: Final = (
    ADMIN,
    SCHEDULER,
    CONTROLLER_MANAGER,
    EXTENDER,
    TENANT,
    KUBELET,
    POD_GC,
    GARBAGE_COLLECTOR,
    NAMESPACE_CONTROLLER,
)


def token_file(users: Sequence[User]) -> str:
    """What ``--token-auth-file`` reads."""
    lines = []
    for number, user in enumerate(users):
        groups = ",".join(user.groups)
        lines.append(f'{user.token},{user.name},{number},"{groups}"')
    return "\n".join(lines) + "\n"


def kubeconfig(user: User, server: str, authority: Path) -> str:
    """The file that clients read, as JSON, which is YAML too."""
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": user.name, "user": {"token": user.token}}],
        "contexts": [{"name": user.name, "context": {"cluster": "test", "user": user.name}}],
        "current-context": user.name,
    }
    return json.dumps(content, indent=2)
