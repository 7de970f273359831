"""The cheapest extender there can be: every node passes, all score 0, and the Binding is sent.

python -m bench.noop PORT KUBECONFIG
"""

import sys
from pathlib import Path

import orjson
import uvicorn
import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import Response

from extender.cluster import KubeCluster


def noop_app(cluster: KubeCluster) -> FastAPI:
    """The three verbs."""
    app = FastAPI()

    async def pass_all(request: Request) -> Response:
        args = orjson.loads(await request.body())
        return _json({"NodeNames": args["NodeNames"]})

    async def score_none(request: Request) -> Response:
        args = orjson.loads(await request.body())
        return _json([{"Host": name, "Score": 0} for name in args["NodeNames"]])

    async def bind(request: Request) -> Response:
        args = orjson.loads(await request.body())
        metadata = {"namespace": args["PodNamespace"], "name": args["PodName"], "uid": args["PodUID"]}
        target = {"apiVersion": "v1", "kind": "Node", "name": args["Node"]}
        await cluster.bind_pod({"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target})
        return _json({"Error": ""})

    async def ready() -> Response:
        return Response("ok")

    for name, verb in (("filter", pass_all), ("prioritize", score_none), ("bind", bind)):
        app.add_api_route(f"/scheduler/{name}", verb, methods=["POST"], response_class=Response)
    app.add_api_route("/readyz", ready, methods=["GET"], response_class=Response)
    return app


def _json(content: object) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


async def serve(port: int, kubeconfig: Path) -> None:
    """Until killed."""
    app = noop_app(await KubeCluster.connect(kubeconfig))
    await uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False, proxy_headers=False)).serve()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
