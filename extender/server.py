"""Running the listeners: one event loop, one process, a stop that lets running requests end.

uvicorn raises the signal that stopped it once more when it is done, so the process would end as if it had been killed;
here the first SIGINT or SIGTERM is a request to stop, and a process that has stopped as asked ends with status 0.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import structlog
import uvicorn

from extender.app import create_app, create_observe_app
from extender.one_write import OneWrite
from extender.service import Service
from extender.tls import Tls

#: Seconds: above the 90 s after which kube-scheduler's Go client drops an idle connection. A server that closes first
#: now and then does so just as a request is written, and a POST is not retried.
KEEP_ALIVE = 120
#: Seconds that running requests get after SIGTERM.
GRACE = 15

log = structlog.get_logger()


class _Listener(uvicorn.Server):
    """A server whose signals are handled in ``run``."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: object, tls: Tls | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
        proxy_headers=False,  # Who calls is nobody's word.
        lifespan="off",  # Nothing waits for it, and a server asked twice to stop would log a traceback for it.
        http=OneWrite,
        **(tls.options() if tls is not None else {}),
    )


async def run(
    service: Service, main: socket.socket, observe: socket.socket | None = None, tls: Tls | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, then let running requests end. ``tls`` is the main listener's."""
    listeners = [(_Listener(_config(create_app(service), tls)), main)]
    if observe is not None:
        listeners.append((_Listener(_config(create_observe_app(service))), observe))

    def stop() -> None:
        for listener, _ in listeners:
            # Asked twice, it does not wait for running requests.
            listener.force_exit, listener.should_exit = listener.should_exit, True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    log.info("serving", address=_address(main, tls), observe=_address(observe) if observe is not None else None)
    async with asyncio.TaskGroup() as group:
        for listener, listening in listeners:
            group.create_task(listener.serve(sockets=[listening]))


def _address(listening: socket.socket, tls: Tls | None = None) -> str:
    host, port = listening.getsockname()[:2]
    scheme = "https" if tls is not None else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
