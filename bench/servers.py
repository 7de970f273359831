"""The two servers that are compared: the extender as `serve` runs it, and a like server that only parses and echoes.

python -m bench.servers extender NODES FILL PORT [STRATEGY]
python -m bench.servers echo 0 0 PORT
"""

import sys

import orjson
import uvicorn
import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import Response

from bench.clusters import GPUS, cluster
from extender import logs
from extender.cli.serve import listener, serve_with
from extender.config import Settings
from extender.server import run


def echo_app() -> FastAPI:
    """A route that parses the same body and returns its names, nothing else."""
    app = FastAPI()

    async def echo(request: Request) -> Response:
        args = orjson.loads(await request.body())
        return Response(orjson.dumps({"NodeNames": args["NodeNames"]}), media_type="application/json")

    app.add_api_route("/echo", echo, methods=["POST"], response_class=Response)
    return app


def echo(port: int) -> None:
    """Serve until killed."""
    config = uvicorn.Config(echo_app(), port=port, log_config=None, access_log=False, timeout_keep_alive=120)
    uvloop.run(uvicorn.Server(config).serve())


def extend(nodes: int, fill: float, port: int, strategy: str | None) -> None:
    """Serve on ``nodes`` nodes until killed; ``fill`` of the GPUs of each are full of shares."""
    logs.configure("info")
    snapshot = cluster(nodes, shares_per_gpu=4, shared_gpus=round(GPUS * fill))
    settings = Settings(strategy=strategy) if strategy else Settings()
    main = listener("port", "127.0.0.1", port)
    uvloop.run(serve_with(settings, snapshot, lambda service: run(service, main)))


if __name__ == "__main__":
    kind, nodes, fill, port, *strategy = sys.argv[1:]
    if kind == "echo":
        echo(int(port))
    else:
        extend(int(nodes), float(fill), int(port), *strategy or (None,))
