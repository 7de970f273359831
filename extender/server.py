"""Running the listeners: one event loop, one process, a stop that lets running requests end."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog
import uvicorn

from extender.app import create_app, create_observe_app
from extender.service import Service

#: Seconds: above the 90 s after which kube-scheduler's Go client drops an idle connection. A server that closes first
#: now and then does so just as a request is written, and a POST is not retried.
KEEP_ALIVE = 120
#: Seconds that running requests get after SIGTERM.
GRACE = 15

log = structlog.get_logger()


class _Listener(uvicorn.Server):
    """A server whose signals somebody else handles."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )


async def run(service: Service, main: socket.socket, observe: socket.socket | None) -> None:
    """Serve until SIGINT or SIGTERM, then let running requests end."""
    server = uvicorn.Server(_config(create_app(service)))
    log.info("serving", address=_address(main), observe=_address(observe) if observe is not None else None)
    if observe is None:
        await server.serve(sockets=[main])
        return
    second = _Listener(_config(create_observe_app(service)))
    beside = asyncio.create_task(second.serve(sockets=[observe]))
    try:
        await server.serve(sockets=[main])
    finally:
        second.should_exit = True
        await beside


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
