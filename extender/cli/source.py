"""Where ``inspect``, ``explain`` and ``check`` get their picture: a snapshot file, or a running service."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx

from extender.app import create_app
from extender.config import Settings
from extender.core.errors import InputError
from extender.service import embedded_service
from extender.snapshot import load_snapshot

DEFAULT_SERVER = "http://127.0.0.1:8888"
_TIMEOUT = 30.0
_Command = TypeVar("_Command", bound=Callable[..., Any])


def source_options(command: _Command) -> _Command:
    """``--snapshot FILE`` or ``--server URL``, and ``-o``."""
    for option in (
        click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table",
                     show_default=True, help="how to print it"),
        click.option("--server", metavar="URL",
                     help=f"a running extender  [default: {DEFAULT_SERVER}]"),
        click.option("--snapshot", type=click.Path(path_type=Path), metavar="FILE",
                     help="a file as `kubectl get nodes,pods -A -o yaml` prints it; - is standard input"),
    ):  # fmt: skip
        command = option(command)
    return command


def fetch(path: str, snapshot: Path | None, server: str | None) -> httpx.Response:
    """GET a path of the service, running or put together from the file: the same answer either way.

    Raises InputError if the file cannot be read or nothing answers.
    """
    if snapshot is not None and server is not None:
        raise InputError("--snapshot and --server: give one of the two")
    if snapshot is not None:
        return _in_process(path, snapshot)
    url = _url(server)
    try:
        return httpx.get(url.rstrip("/") + path, timeout=_TIMEOUT, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(f"--server {url}: {error or type(error).__name__}") from error


def fetch_json(path: str, fields: Collection[str], snapshot: Path | None, server: str | None) -> Any:
    """The object at a path of the service, with these fields. Raises InputError that names the file or the server."""
    response = fetch(path, snapshot, server)
    try:
        told = response.json()
    except ValueError:
        told = None
    if response.status_code != 200:
        detail = told.get("detail") if isinstance(told, dict) else None
        detail = detail or f"HTTP {response.status_code}: {response.text.strip()[:200]}"
        raise InputError(f"{snapshot or _url(server)}: {detail}")
    if not isinstance(told, dict) or not told.keys() >= set(fields):
        raise InputError(f"--server {_url(server)}: what answers there is no gpu-extender")
    return told


def _url(server: str | None) -> str:
    return server or os.environ.get("GPU_EXTENDER_SERVER") or DEFAULT_SERVER


def _in_process(path: str, snapshot: Path) -> httpx.Response:
    import asyncio  # noqa: PLC0415 - only this branch runs a loop

    app = create_app(embedded_service(Settings(), load_snapshot(snapshot)))

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as client:
            return await client.get(path)

    return asyncio.run(get())
