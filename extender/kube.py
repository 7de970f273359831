"""The connection to a Kubernetes API server, and the only importer of its client.

The client serves for addresses, TLS and credentials. Objects stay raw JSON: its models refuse fields that they do
not know, take minutes for 100,000 pods, and fail on the answer of a Binding that has succeeded. Whatever goes wrong
leaves here as one of ``errors.ApiError``'s kinds.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import getproxies

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import OpenApiException
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from extender.core.errors import ApiError, Busy, Conflict, Gone, InputError, NotFound, Refused, Unavailable

Json = dict[str, Any]
MERGE_PATCH: Final = "application/merge-patch+json"
# 408 is a proxy's: whether the request arrived, nobody knows.
_KINDS: Final[Mapping[int, type[ApiError]]] = {404: NotFound, 408: Unavailable, 409: Conflict, 410: Gone, 429: Busy}
# Everything that client and connection were seen to raise. RuntimeError: the session was closed meanwhile;
# ValueError: the answer breaks HTTP; HttpProcessingError, no ClientError: a line longer than the buffer.
_FAILURES: Final = (
    aiohttp.ClientError,
    HttpProcessingError,
    OpenApiException,
    ConfigException,
    OSError,
    ValueError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a request may take, answer included, and that a watch may be silent.

    A page of a list has more: where an API server that has just started needs too long for the first page, a list
    that begins again makes it worse. The server sends a bookmark about once a minute: a longer silence is a dead
    connection.
    """

    request: float = 5.0
    page: float = 30.0
    silence: float = 90.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``body`` is sent as JSON."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    query: Sequence[tuple[str, str]] = ()
    content: str = "application/json"


class Connection:
    """Requests to one API server."""

    def __init__(self, client: ApiClient, limits: Limits) -> None:
        self._client = client
        self._limits = aiohttp.ClientTimeout(total=limits.request)
        self._page_limits = aiohttp.ClientTimeout(total=limits.page, sock_connect=limits.request)
        self._stream_limits = aiohttp.ClientTimeout(total=None, sock_connect=limits.request, sock_read=limits.silence)

    @classmethod
    async def open(cls, kubeconfig: Path | None, limits: Limits) -> "Connection":
        """Credentials from that file, or those of the pod that this runs in; nothing is sent yet. Raises InputError."""
        configuration = Configuration()
        _ensure_exists(kubeconfig)
        try:
            if kubeconfig is None:
                load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            else:
                await load_kube_config(  # type: ignore[no-untyped-call]
                    str(kubeconfig), client_configuration=configuration, persist_config=False
                )
            # True also means that a ~/.netrc is looked for at each request, in a thread.
            configuration.client_session_kwargs = {"trust_env": "https" in getproxies()}
            return cls(ApiClient(configuration), limits)
        except Exception as error:  # the loaders raise what they meet: KeyError, yaml's errors, binascii's …
            if kubeconfig is None:
                text = f"no credentials for Kubernetes in the service account of this pod: {_sentence(error)}"
                raise InputError(f"{text} (outside of a cluster: --kubeconfig FILE, or --snapshot FILE)") from error
            raise InputError(f"no credentials for Kubernetes in {kubeconfig}: {_sentence(error)}") from error

    async def close(self) -> None:
        """End every connection; requests under way end with Unavailable."""
        await self._client.rest_client.close()

    async def send(self, request: Request, *, page: bool = False) -> bytes:
        """The body of a 2xx answer; ``page``: it is one of a list. Raises ApiError."""
        try:
            answer = await self._answer(request, self._page_limits if page else self._limits)
            async with answer:
                text = await answer.read()
        except _FAILURES as error:
            raise Unavailable(f"no answer from the Kubernetes API: {_sentence(error)}") from error
        if not 200 <= answer.status < 300:
            raise _refusal(answer.status, answer.reason, text)
        return text

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        """The lines of the answer, as they come. Raises ApiError."""
        try:
            answer = await self._answer(request, self._stream_limits)
            async with answer:
                if answer.status != 200:
                    raise _refusal(answer.status, answer.reason, await answer.read())
                async for line in answer.content:
                    yield line
        except _FAILURES as error:
            raise Unavailable(f"the Kubernetes API broke off a watch: {_sentence(error)}") from error

    async def _answer(self, request: Request, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        serialized = await self._client.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query),
            header_params={"Accept": "application/json", "Content-Type": request.content},
            body=request.body,
            auth_settings=["BearerToken"],
        )
        answer = await self._client.call_api(*serialized, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        return response


def parse(text: bytes) -> Json:
    """A JSON object. Raises Unavailable where the answer is none: whoever sent it was not the API server."""
    try:
        content = orjson.loads(text)
    except ValueError as error:
        raise Unavailable(f"the Kubernetes API answered with something that is no JSON: {_sentence(error)}") from error
    if not isinstance(content, dict):
        raise Unavailable(f"the Kubernetes API answered with {type(content).__name__} instead of an object")
    return content


def refusal_of(status: Mapping[str, Any]) -> ApiError:
    """The error that a v1 Status stands for."""
    code = status.get("code")
    return _error(code if isinstance(code, int) else 500, str(status.get("message") or status.get("reason") or ""))


def _refusal(code: int, reason: str | None, text: bytes) -> ApiError:
    try:
        message = parse(text).get("message")
    except Unavailable:
        message = None
    return _error(code, str(message or reason or ""))


def _error(code: int, message: str) -> ApiError:
    kind = _KINDS.get(code, Refused if 400 <= code < 500 else Unavailable)
    return kind(f"the Kubernetes API answered {code}: {message}" if message else f"the Kubernetes API answered {code}")


def _ensure_exists(kubeconfig: Path | None) -> None:
    # The loader logs that, and then complains of a file that is empty.
    if kubeconfig is not None and not kubeconfig.exists():
        raise InputError(f"kubeconfig is {kubeconfig} but there is no such file")


def _sentence(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())
