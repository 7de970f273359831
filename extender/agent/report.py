"""The agent's own pod in the API: read it, annotate it, with the pod's service account and nothing else."""

import http.client
import json
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from extender.core.errors import ApiError, Conflict, InputError, NotFound, Refused, Unavailable

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Seconds without an answer.
TIMEOUT: Final = 10.0
#: Bytes: more than any pod.
_LONGEST_ANSWER: Final = 4 * 1024**2
_KINDS: Final[Mapping[int, type[ApiError]]] = {404: NotFound, 408: Unavailable, 409: Conflict, 429: Unavailable}


@dataclass(frozen=True, slots=True)
class Identity:
    """Which pod this is: namespace, name and UID, through the downward API."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Identity":
        """POD_NAMESPACE, POD_NAME, POD_UID. Raises InputError naming the one that is missing."""
        values = {variable: environment.get(variable, "") for variable in ("POD_NAMESPACE", "POD_NAME", "POD_UID")}
        for variable, value in values.items():
            if not value:
                raise InputError(f"environment: {variable} is not set: the agent runs in a reservation pod")
        return cls(*values.values())


def in_cluster_api(environment: Mapping[str, str]) -> str:
    """The API server's address as every pod is told it. Raises InputError outside of a pod."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise InputError("environment: KUBERNETES_SERVICE_HOST is not set: the agent runs in a reservation pod")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class OwnPod:
    """The pod that this process runs in. Every call raises ``errors.ApiError`` or one of its kinds, nothing else."""

    def __init__(self, identity: Identity, api: str, account: Path = ACCOUNT, timeout: float = TIMEOUT) -> None:
        self._identity = identity
        self._address = urlsplit(api)
        self._account = account
        self._timeout = timeout
        self._path = (
            f"{self._address.path.rstrip('/')}/api/v1/namespaces/{quote(identity.namespace, safe='')}"
            f"/pods/{quote(identity.name, safe='')}"
        )

    def read(self) -> Mapping[str, Any]:
        """The pod's metadata. Raises NotFound where another pod has the name by now."""
        metadata = self._send("GET").get("metadata")
        if not isinstance(metadata, dict) or metadata.get("uid") != self._identity.uid:
            raise NotFound(f"pod {self._identity.namespace}/{self._identity.name} is another pod by now")
        return metadata

    def annotate(self, changes: Mapping[str, str | None], version: str | None = None) -> None:
        """Set annotations (None: remove). With ``version`` only if nobody has written since: else Conflict."""
        metadata: dict[str, Any] = {"uid": self._identity.uid, "annotations": dict(changes)}
        if version is not None:
            metadata["resourceVersion"] = version
        self._send("PATCH", {"metadata": metadata})

    def _send(self, method: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        try:
            with closing(self._connect()) as connection:
                text = None if body is None else json.dumps(body)
                connection.request(method, self._path, text, self._headers())
                answer = connection.getresponse()
                content = json.loads(answer.read(_LONGEST_ANSWER))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"no answer from the Kubernetes API: {type(error).__name__} {error}") from error
        if not isinstance(content, dict):
            raise Unavailable(f"the Kubernetes API answered {answer.status} with something that is no object")
        if not 200 <= answer.status < 300:
            raise _kind(answer.status)(f"the Kubernetes API answered {answer.status}: {content.get('message')}")
        return content

    def _headers(self) -> Mapping[str, str]:
        # Read on each use: the kubelet replaces a token before it runs out.
        token = (self._account / "token").read_text("ascii").strip()
        return {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "Content-Type": "application/merge-patch+json",
        }

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port
        if self._address.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        trusted = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
        return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=trusted)


def _kind(status: int) -> type[ApiError]:
    return _KINDS.get(status, Refused if 400 <= status < 500 else Unavailable)
