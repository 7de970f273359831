"""The service as a process: start, stop, sockets, keep-alive."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from extender import server
from tests.builders import make_node, make_pod
from tests.conftest import Serving, Start, clean_environment, serve_command

VERBS = ("filter", "prioritize", "bind", "preempt")
FILTER = json.dumps({"Pod": make_pod("p").build(), "NodeNames": ["n"]}).encode()


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``serve`` where it should refuse to start."""
    return subprocess.run(
        serve_command(*options),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=clean_environment(**environment),
    )


@pytest.fixture(scope="module")
def served(start_anywhere: Callable[[ExitStack], Start], cluster_file: Path) -> Iterator[Serving]:
    """A service with both listeners, for tests that leave it as it is."""
    with ExitStack() as stack:
        observe = ("--observe-host", "127.0.0.1", "--observe-port", "0")
        yield start_anywhere(stack)("--snapshot", str(cluster_file), *observe)


@dataclass(frozen=True)
class Learning:
    """A service in a session of its own, with its learner running."""

    process: "subprocess.Popen[bytes]"
    log: Path
    url: str


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Learning]:
    """Just serving: its learner starts."""
    items = [make_node("n").gpus(8, mib=81920).build()]
    cluster = tmp_path / "cluster.json"
    cluster.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    command = serve_command("--port", "0", "--snapshot", str(cluster))
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(command, stderr=log, env=clean_environment(), start_new_session=True)
        try:
            yield Learning(process, tmp_path / "log", _address(tmp_path / "log"))
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def learning(starting: Learning) -> Learning:
    for index in range(20):  # Enough to start learning.
        pod = make_pod(f"p{index}").gpu_memory(1000).build()
        body = {"Pod": pod, "Nodes": None, "NodeNames": ["n"]}
        httpx.post(f"{starting.url}/scheduler/filter", json=body, trust_env=False)
    time.sleep(1)
    return starting


def test_start_ready_and_stop(start: Start, cluster_file: Path) -> None:
    served = start("--snapshot", str(cluster_file))
    ready = served.get("/readyz")
    assert (ready.status_code, ready.text) == (200, "ok\n")
    assert served.get("/inspect").json()["totals"]["gpus"] == 2
    assert served.url.startswith("http://127.0.0.1:"), "nothing but this machine reaches the verbs"
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(20) == 0
    assert all(json.loads(line)["event"] for line in served.log().splitlines()), "one JSON line per event"


def test_a_request_under_way_is_answered(start: Start, cluster_file: Path) -> None:
    served = start("--snapshot", str(cluster_file), "--observe-host", "127.0.0.1", "--observe-port", "0")
    head = f"POST /scheduler/filter HTTP/1.1\r\nHost: x\r\nContent-Length: {len(FILTER)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(head + FILTER[:10])
        assert served.get("/healthz").status_code == 200
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert served.process.poll() is None, "it waits for the request"
        connection.sendall(FILTER[10:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"NodeNames":["n"]' in answer
    assert served.process.wait(20) == 0
    assert "Traceback" not in served.log()


def test_a_service_that_is_asked_twice_stops_without_complaint(start: Start, cluster_file: Path) -> None:
    """As when a whole process group is stopped and its first process stops the others."""
    served = start("--snapshot", str(cluster_file))
    with socket.create_connection(("127.0.0.1", served.port), timeout=20):
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
    assert "Traceback" not in served.log()


def test_an_idle_connection_stays(served: Serving) -> None:
    """kube-scheduler's client keeps connections for 90 s; a server that closes first loses a bind now and then."""
    assert server.KEEP_ALIVE > 90
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    try:
        connection.request("POST", "/scheduler/filter", FILTER)
        connection.getresponse().read()
        first = connection.sock
        time.sleep(6)
        connection.request("POST", "/scheduler/filter", FILTER)
        assert connection.getresponse().status == 200
        assert connection.sock is first
    finally:
        connection.close()


def test_the_observe_listener(served: Serving) -> None:
    assert served.observe_url
    with httpx.Client(base_url=served.observe_url, trust_env=False) as client:
        for path in ("/healthz", "/readyz", "/metrics", "/inspect", "/check", "/explain/default/waiting"):
            assert client.get(path).status_code == 200, path
        for verb in VERBS:
            assert client.post(f"/scheduler/{verb}", content=FILTER).status_code in (404, 405)
        assert client.post("/embedded/pods", content=b"{}").status_code in (404, 405)
    assert served.get("/inspect").status_code == 200


def test_port_in_use(cluster_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--snapshot", str(cluster_file), "--port", str(port))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"gpu-extender: host/port: 127.0.0.1:{port}: Address already in use\n"


def test_flag_beats_environment_beats_file(start: Start, cluster_file: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"snapshot: {cluster_file}\nmax-body-mib: 3\nlog-level: warning\nclaim-ttl: 0\n")
    environment = {"GPU_EXTENDER_MAX_BODY_MIB": "2", "GPU_EXTENDER_CLAIM_TTL": "2.5"}
    served = start("--config", str(settings), "--log-level", "info", "--max-body-mib", "1", **environment)
    answer = httpx.post(f"{served.url}/scheduler/filter", content=b" " * (3 << 19), trust_env=False)
    assert (answer.status_code, answer.text) == (413, "the body is larger than 1 MiB (max-body-mib)\n")


def test_many_connections_at_once(served: Serving) -> None:
    statuses: list[int] = []

    def ask() -> None:
        statuses.extend(served.get("/readyz").status_code for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40


def test_ctrl_c_in_a_terminal_ends_quietly(learning: Learning) -> None:
    """Ctrl-C reaches every process of the terminal, the learner too: it left a traceback."""
    os.killpg(learning.process.pid, signal.SIGINT)
    assert learning.process.wait(20) == 0
    assert "Traceback" not in learning.log.read_text()


def test_ctrl_c_at_the_start_ends_quietly(starting: Learning) -> None:
    """The learner starts with the service, and takes longer: it was interrupted before it could ignore that."""
    os.killpg(starting.process.pid, signal.SIGINT)
    assert starting.process.wait(20) == 0
    assert "Traceback" not in starting.log.read_text()


def test_the_learner_is_there_before_the_first_decision(starting: Learning) -> None:
    """Started in the middle of one, it held that up."""
    children = Path(f"/proc/{starting.process.pid}/task/{starting.process.pid}/children").read_text()
    assert len(children.split()) >= 1


def test_kill_9_leaves_no_process_behind(learning: Learning) -> None:
    """The learner waited for work for ever."""
    learning.process.kill()
    learning.process.wait(20)
    deadline = time.monotonic() + 20
    while _group_lives(learning.process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def _address(log: Path) -> str:
    for _ in range(300):
        first, newline, _ = log.read_text().partition("\n")
        if newline:
            return str(json.loads(first)["address"])
        time.sleep(0.1)
    raise AssertionError(log.read_text())
