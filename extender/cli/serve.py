"""``gpu-extender serve``: the HTTP service. Its options are the settings, one for one."""

import gc
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop
from pydantic.fields import FieldInfo

from extender import logs
from extender.config import ENVIRONMENT_PREFIX, Settings, load
from extender.core.errors import InputError
from extender.learning import Background
from extender.live.service import live_service
from extender.server import run
from extender.service import Service, embedded_service
from extender.snapshot import Snapshot, load_snapshot
from extender.tls import Tls, guard

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _settings_options(command: _Command) -> _Command:
    for name, field in reversed(Settings.model_fields.items()):
        option = "--" + name.replace("_", "-")
        default = "" if field.default is None else f" [default: {_shown(field)}]"
        command = click.option(option, name, default=None, help=f"{field.description}{default}", **_kind(field))(
            command
        )
    return command


def _kind(field: FieldInfo) -> dict[str, Any]:
    # Values are checked in one place, by Settings; only switches need click's help.
    return {"is_flag": True, "flag_value": True} if field.annotation is bool else {"metavar": "VALUE"}


def _shown(field: FieldInfo) -> str:
    return "off" if field.default is False else str(field.default)


@click.command(epilog="Example: gpu-extender serve --snapshot examples/cluster.yaml --port 8888")
@click.option("--config", "file", type=click.Path(path_type=Path), envvar=f"{ENVIRONMENT_PREFIX}CONFIG",
              help="YAML file with settings; names as the options without --")  # fmt: skip
@_settings_options
def serve(file: Path | None, **flags: Any) -> None:
    """Serve the scheduler extender.

    For the cluster that this runs in, or that --kubeconfig names. With --snapshot it serves the embedded cluster: nodes
    and pods as `kubectl get nodes,pods -A -o yaml` prints them.
    """
    settings = load(flags, os.environ, file)
    logs.configure(settings.log_level)
    snapshot = load_snapshot(settings.snapshot) if settings.snapshot is not None else None
    with ExitStack() as stack:
        tls = Tls.of(settings)
        observe = _observe_socket(settings)
        if observe is not None:
            stack.enter_context(observe)
        main = stack.enter_context(listener("host/port", settings.host, settings.port))
        guard(main, tls)
        uvloop.run(serve_with(settings, snapshot, lambda service: run(service, main, observe, tls)))


async def serve_with(
    settings: Settings, snapshot: Snapshot | None, run: Callable[[Service], Coroutine[Any, Any, None]]
) -> None:
    """``run`` the service: on the embedded cluster, or without a snapshot on a real one.

    Learning runs beside the loop: no decision waits for it.
    """
    with closing(Background()) as learning:
        learning.start()
        if snapshot is not None:
            service = embedded_service(settings, snapshot, refresher=learning)
            gc.freeze()  # What is loaded stays: the collector need not look at it again and again.
            await run(service)
            return
        async with live_service(settings, learning) as service:
            await run(service)


def _observe_socket(settings: Settings) -> socket.socket | None:
    if settings.observe_port is None and settings.observe_host is None:
        return None
    if settings.observe_port is None:
        raise InputError("observe-port: must be set where observe-host is")
    return listener("observe-host/observe-port", settings.observe_host or "127.0.0.1", settings.observe_port)


def listener(names: str, host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError that names the settings."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address, family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{names}: {host}:{port}: {_reason(error)}") from error
    # asyncio sets this on sockets that say they are TCP; connections of this listener do not. Without it an answer of
    # two packets waits 40 ms for the client's delayed acknowledgement of the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _reason(error: OSError | UnicodeError) -> str:
    # socket.create_server adds an address of its own to the text; a name that is not found has its own numbers.
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return str(getattr(error, "strerror", None) or error)
