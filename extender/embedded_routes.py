"""``/embedded/pods``: what users and kubectl do on a real cluster, for the embedded one."""

from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response

from extender.binding.reservations import Reservations
from extender.core.errors import Conflict, InputError, NotFound, Refused
from extender.core.podreader import is_reservation, node_of, uid_of
from extender.embedded import EmbeddedCluster
from extender.snapshot import read_pod


def add_embedded_routes(app: FastAPI, cluster: EmbeddedCluster, reservations: Reservations) -> None:
    """Create, read and delete pods."""

    async def create(request: Request) -> Response:
        try:
            pod = read_pod(_json(await request.body()))
            return _reply(await cluster.submit(pod), 201)
        except Conflict as error:
            return _detail(error, 409)
        except (InputError, Refused) as error:
            return _detail(error, 422)

    async def read(namespace: str, name: str) -> Response:
        try:
            return _reply(await cluster.get_pod(namespace, name), 200)
        except NotFound as error:
            return _detail(error, 404)

    async def delete(namespace: str, name: str) -> Response:
        try:
            pod = await cluster.get_pod(namespace, name)
        except NotFound as error:
            return _detail(error, 404)
        await cluster.delete_pod(namespace, name, uid_of(pod))
        node = node_of(pod)
        if node is not None and not is_reservation(pod):
            await reservations.close_idle(node)
        return _reply(pod, 200)

    app.add_api_route("/embedded/pods", create, methods=["POST"], response_class=Response, status_code=201)
    path = "/embedded/pods/{namespace}/{name}"
    app.add_api_route(path, read, methods=["GET"], response_class=Response)
    app.add_api_route(path, delete, methods=["DELETE"], response_class=Response)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not JSON: {error}") from error


def _reply(content: Any, status: int) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _detail(error: Exception, status: int) -> Response:
    return _reply({"detail": str(error)}, status)
