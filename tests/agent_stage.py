"""What an agent meets in its pod: NVML, and the API server; both played."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from extender.agent.report import Identity

ME = Identity("gpu-reservations", "share-1", "uid-1")
PATH = "/api/v1/namespaces/gpu-reservations/pods/share-1"


def gpu(uuid: str = "GPU-1", mib: int | None = 81559, **more: Any) -> dict[str, Any]:
    return {"uuid": uuid, "mib": mib, **more}


def show(file: Path, *gpus: Mapping[str, Any]) -> None:
    """Let NVML show these GPUs; in one step, for the agent may be reading."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"gpus": gpus}), "utf-8")
    new.rename(file)


@dataclass
class PodApi:
    """An API server with one pod. ``script``: status codes to answer first, 0 to hang up."""

    uid: str = ME.uid
    version: int = 1
    annotations: dict[str, str] = field(default_factory=dict)
    script: list[int] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path != PATH:
            return 404, {"message": "no such pod"}
        if method == "PATCH":
            refused = self._patch(body["metadata"])
            if refused is not None:
                return refused, {"message": "refused"}
        return 200, {
            "metadata": {"uid": self.uid, "resourceVersion": str(self.version), "annotations": self.annotations}
        }

    def _patch(self, metadata: dict[str, Any]) -> int | None:
        self.bodies.append(metadata)
        if metadata["uid"] != self.uid:
            return 422
        if metadata.get("resourceVersion", str(self.version)) != str(self.version):
            return 409
        for key, value in metadata["annotations"].items():
            self.annotations.pop(key, None)
            if value is not None:
                self.annotations[key] = value
        self.version += 1
        return None


@contextmanager
def serving(api: PodApi) -> Iterator[PodApi]:
    """That API on a port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._handle({})

        def do_PATCH(self) -> None:
            if self.headers["Content-Type"] != "application/merge-patch+json":
                self._write(415, {"message": "unsupported"})
                return
            self._handle(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _handle(self, body: dict[str, Any]) -> None:
            api.tokens.append(self.headers["Authorization"])
            status = api.script.pop(0) if api.script else None
            if status == 0:
                self.close_connection = True
                return
            if status is not None:
                self._write(status, {"message": "scripted"})
                return
            self._write(*api.answer(self.command, self.path, body))

        def _write(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
