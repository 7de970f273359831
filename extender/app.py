"""The HTTP service: scheduler verbs, what people and Prometheus look at, and the embedded cluster's pods.

Whatever a caller of a verb must read is HTTP 200 with ``Error``: kube-scheduler reads no other answer's body.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from extender.body_limit import BodyLimit
from extender.core.errors import InputError
from extender.core.explain import explain, gather, judge
from extender.core.inspect import picture
from extender.core.podreader import uid_of
from extender.core.values import NodeState
from extender.direct import Direct, Endpoint
from extender.embedded_routes import add_embedded_routes
from extender.metrics import Scrape
from extender.service import Service
from extender.verbs import Answer, Verbs

VERBS = ("filter", "prioritize", "bind", "preempt")
#: How many nodes explain judges before it lets decisions pass.
NODES_AT_A_TIME = 50

log = structlog.get_logger()


def create_app(service: Service) -> FastAPI:
    """The main listener: everything."""
    verbs = Verbs(service)
    endpoints = {f"/scheduler/{name}": _verb(service, name, getattr(verbs, name)) for name in VERBS}
    limit = Middleware(BodyLimit, most=service.settings.max_body_mib << 20)
    app = FastAPI(title="gpu-extender", middleware=[limit, Middleware(Direct, endpoints)], redirect_slashes=False)
    for path, endpoint in endpoints.items():
        # For /docs, and for who comes with another method than POST.
        app.add_api_route(path, endpoint, methods=["POST"], name=path.rpartition("/")[2], response_class=Response)
    add_read_routes(app, service)
    if service.embedded is not None:
        add_embedded_routes(app, service.embedded, service.reservations)
    app.add_exception_handler(HTTPException, _plain_error)
    return app


def create_observe_app(service: Service) -> FastAPI:
    """The second listener: only the GET paths, never the scheduler verbs."""
    app = FastAPI(title="gpu-extender (observe)", redirect_slashes=False, openapi_url=None)
    add_read_routes(app, service)
    return app


def add_read_routes(app: FastAPI, service: Service) -> None:
    """The paths that change nothing."""

    def states() -> list[NodeState]:
        """Frozen values, taken in one tick: a long answer is written in a thread while decisions go on."""
        return list(service.decisions.ledger.snapshot())

    async def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    async def readyz() -> Response:
        reason = service.not_ready()
        return Response(f"{reason or 'ok'}\n", 200 if reason is None else 503, media_type="text/plain")

    async def metrics() -> Response:
        seen = Scrape(states(), service.binder.oldest_assumed(), service.decisions.fragmentation())
        text = await asyncio.to_thread(service.metrics.render, seen)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def inspect() -> Response:
        return await asyncio.to_thread(lambda seen: to_json(picture(seen)), states())

    async def check() -> Response:
        return to_json({"differences": [difference.as_json() for difference in await service.differences()]})

    async def explain_pod(namespace: str, pod: str) -> Response:
        found = service.view.find(namespace, pod)
        if found is None:
            return to_json({"detail": f"pod {namespace}/{pod} is not known"}, 404)
        evidence = gather(service.decisions.ledger, found, service.last_decisions.get(uid_of(found)))
        judged = []
        for number, verdict in enumerate(judge(service.decisions, evidence)):
            judged.append(verdict)
            if number % NODES_AT_A_TIME == 0:
                await asyncio.sleep(0)
        told = await asyncio.to_thread(explain, evidence, judged, service.view.nodes.get)
        return to_json(told)

    routes: dict[str, Callable[..., Awaitable[Response]]] = {
        "/healthz": healthz,
        "/readyz": readyz,
        "/metrics": metrics,
        "/inspect": inspect,
        "/check": check,
        "/explain/{namespace}/{pod}": explain_pod,
    }
    for path, endpoint in routes.items():
        app.add_api_route(path, endpoint, methods=["GET"], response_class=Response)


def to_json(content: Any, status: int = 200) -> Response:
    """JSON by orjson, with Content-Length."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def _verb(service: Service, name: str, handle: Callable[[bytes], Awaitable[Answer]]) -> Endpoint:
    duration = service.metrics.duration.labels(name)
    results = service.metrics.results

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        start = time.perf_counter()
        try:
            reason = service.not_ready()
            answer = Answer.error(reason) if reason is not None else await handle(body)
        except InputError as error:
            answer = Answer.error(str(error), result="invalid")
        except Exception:
            # A bug of ours must not look like "fits": the caller reads an error, the log has the traceback.
            log.exception(name)
            answer = Answer.error("internal error, see the extender's log", result="internal")
        content, answer = _written(answer)
        seconds = time.perf_counter() - start
        duration.observe(seconds)
        results.labels(name, answer.result).inc()
        log.info(name, result=answer.result, ms=round(seconds * 1000, 3), **answer.facts)
        if answer.facts.get("uid"):
            service.last_decisions[answer.facts["uid"]] = {"verb": name, "result": answer.result, **answer.facts}
        return Response(content, media_type="application/json")

    return endpoint


def _written(answer: Answer) -> tuple[bytes, Answer]:
    """The answer as JSON. Node objects go back as they came, and may hold a number that nobody can write."""
    try:
        return orjson.dumps(answer.body), answer
    except orjson.JSONEncodeError as error:
        refused = Answer.error(f"the body cannot be sent back: {error}", result="invalid")
        return orjson.dumps(refused.body), refused


async def _plain_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)
