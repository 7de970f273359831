"""The two servers that are compared: the extender, and a like server that only parses and echoes.

python -m bench.servers extender NODES FILL PORT
python -m bench.servers echo 0 0 PORT
"""

import asyncio
import sys

import orjson
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response

from bench.clusters import GPUS, cluster
from extender import logs
from extender.app import create_app
from extender.config import Settings
from extender.service import embedded_service


def echo_app() -> FastAPI:
    """A route that parses the same body and returns its names, nothing else."""
    app = FastAPI()

    async def echo(request: Request) -> Response:
        args = orjson.loads(await request.body())
        return Response(orjson.dumps({"NodeNames": args["NodeNames"]}), media_type="application/json")

    app.add_api_route("/echo", echo, methods=["POST"], response_class=Response)
    return app


def extender_app(nodes: int, fill: float, strategy: str | None) -> FastAPI:
    """The extender on ``nodes`` nodes; ``fill`` of the GPUs of each are full of shares."""
    logs.configure("info")
    snapshot = cluster(nodes, shares_per_gpu=4, shared_gpus=round(GPUS * fill))
    settings = Settings(strategy=strategy) if strategy else Settings()
    return create_app(embedded_service(settings, snapshot))


def main() -> None:
    """Serve until killed."""
    kind, nodes, fill, port, *strategy = sys.argv[1:]
    app = echo_app() if kind == "echo" else extender_app(int(nodes), float(fill), *strategy or (None,))
    config = uvicorn.Config(app, port=int(port), log_config=None, access_log=False, timeout_keep_alive=120)
    asyncio.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
