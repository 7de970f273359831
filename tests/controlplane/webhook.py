"""Somebody's mutating webhook: it runs after all mutating policies, and changes pods as a test says."""

import base64
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

from tests.controlplane.client import Answer, Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.policies import what_if
from tests.controlplane.process import eventually, free_port

Json = dict[str, Any]
#: It is asked about pods that carry this label.
LABEL: Final = "example.com/webhook"
#: What it leaves on each, beside what the test says.
_SEEN: Final = {"op": "add", "path": "/metadata/labels/example.com~1seen", "value": "yes"}
_CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@asynccontextmanager
async def patching(
    plane: ControlPlane, admin: Client, patch: Sequence[Json], *, again: bool = False
) -> AsyncIterator[None]:
    """While it is in force, this JSON Patch is applied to each pod with LABEL that is created.

    ``again``: once more after others have changed what it had left.
    """
    port = free_port()
    runner = web.AppRunner(_application([*patch, _SEEN]))
    await runner.setup()
    certificates = plane.folder / "certs"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    configuration = _configuration(f"https://127.0.0.1:{port}/", plane.authority.read_bytes(), again)
    await admin.post(_CONFIGURATIONS, configuration)
    try:
        await eventually(lambda: _is_asked(admin), lambda: "the webhook is not asked")
        yield
    finally:
        await admin.delete(f"{_CONFIGURATIONS}/{configuration['metadata']['name']}")
        await runner.cleanup()


def _application(patch: Sequence[Json]) -> web.Application:
    async def review(request: web.Request) -> web.Response:
        asked = await request.json()
        encoded = base64.b64encode(json.dumps(list(patch)).encode()).decode()
        answer = {"uid": asked["request"]["uid"], "allowed": True, "patchType": "JSONPatch", "patch": encoded}
        return web.json_response({"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": answer})

    application = web.Application()
    application.router.add_post("/", review)
    return application


def _configuration(url: str, authority: bytes, again: bool) -> Json:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    hook = {
        "name": "webhook.example.com",
        "clientConfig": {"url": url, "caBundle": base64.b64encode(authority).decode()},
        "rules": [rule],
        "objectSelector": {"matchExpressions": [{"key": LABEL, "operator": "Exists"}]},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "reinvocationPolicy": "IfNeeded" if again else "Never",
    }
    return {"metadata": {"name": "webhook"}, "webhooks": [hook]}


async def _is_asked(admin: Client) -> bool:
    """A pod that nothing of ours looks at shows it, whether the patch fits it or not."""
    metadata = {"name": "probe", "labels": {LABEL: ""}, "annotations": {"example.com/a": ""}}
    body = {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    try:
        return "example.com/seen" in (await admin.post(what_if(), body))["metadata"]["labels"]
    except Answer as answer:
        return "denied request" in str(answer)
