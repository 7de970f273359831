"""The command line: what it prints, what it returns, and what its errors name."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest
import yaml

from extender.cli import COMMANDS, main
from extender.core import names
from tests.builders import make_node, make_pod
from tests.conftest import Start

CARD = 81920


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command in this process; its exit status and what it wrote."""
    monkeypatch.delenv("GPU_EXTENDER_SERVER", raising=False)
    # `serve` sets up the whole process's logs: here that would be those of all tests that follow.
    monkeypatch.setattr("extender.logs.configure", lambda level: None)
    # What a terminal would say must not change what a pipe gets.
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["gpu-extender", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return Ended(code, *capfd.readouterr())

    return call


def bound(pod: Any, node: str, **annotations: str) -> Any:
    pod["spec"]["nodeName"] = node
    pod["metadata"]["annotations"] |= {names.PREFIX + key.replace("_", "-"): v for key, v in annotations.items()}
    pod["status"] = {"phase": "Running"}
    return pod


def items() -> list[Any]:
    """Two GPU nodes and one without; a share, a whole GPU, and three that wait."""
    device = "GPU-11111111-2222-3333-4444-555555555555"
    agent = make_pod("share-1", names.RESERVATION_NAMESPACE).gpus(1).build()
    share = make_pod("llm-0", "team-a").gpu_fraction("0.5").build()
    return [
        make_node("gpu-01").gpus(2, mib=CARD).build(),
        make_node("a-node-with-a-long-name-01.eu-central-1.compute.example.com").gpus(8, mib=CARD).build(),
        make_node("cpu-01").build(),
        bound(agent, "gpu-01", device=device, device_memory_mib=str(CARD)),
        bound(share, "gpu-01", shared_gpus="share-1", visible_devices=device, memory_mib=str(CARD // 2)),
        bound(make_pod("train-0", "team-b").gpus(1).build(), "gpu-01"),
        make_pod("waiting", "team-a").gpu_memory(4096).build(),
        make_pod("too-big", "team-a").gpu_memory(CARD + 1).build(),
        make_pod("wrong", "team-a").gpu_fraction("2").build(),
    ]


def written(path: Path, objects: list[Any]) -> Path:
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return path


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return written(tmp_path / "cluster.json", items())


def reads_well(text: str) -> None:
    assert text.endswith("\n")
    assert "\x1b" not in text, "no colour in a pipe"
    assert all(len(line) <= 80 and line == line.rstrip() for line in text.splitlines()), text


# --- tables and other forms -------------------------------------------------------------------------------


def test_inspect(run: Run, snapshot: Path) -> None:
    ended = run("inspect", "--snapshot", str(snapshot))
    assert (ended.code, ended.err) == (0, "")
    reads_well(ended.out)
    for word in ("gpu-01", "2 x H100-80GB-HBM3", "1 held, 1", "no GPU", "team-a/llm-0", "GPU-11111111"):
        assert word in ended.out
    assert ended.out.splitlines()[-1] == "10 GPUs, 120.0 of 800.0 GiB held by 2 pods"


def test_explain(run: Run, snapshot: Path) -> None:
    pending = run("explain", "--snapshot", str(snapshot), "team-a/waiting")
    assert pending.code == 0
    reads_well(pending.out)
    assert pending.out.startswith("team-a/waiting: pending; asks for 4096 MiB\n2 of 3 nodes would take it\n")
    here = run("explain", "--snapshot", str(snapshot), "team-a/llm-0")
    assert here.code == 0
    assert "bound on node gpu-01, device GPU-11111111-2222" in " ".join(here.out.split())
    nowhere = run("explain", "--snapshot", str(snapshot), "team-a/too-big")
    assert nowhere.code == 1
    reads_well(nowhere.out)
    assert "none of 3 nodes would take it" in nowhere.out
    assert "the share is larger than a GPU of this node" in nowhere.out
    wrong = run("explain", "--snapshot", str(snapshot), "team-a/wrong")
    assert wrong.code == 1
    assert wrong.out.startswith("team-a/wrong: refused: ")
    assert "gpu-fraction" in wrong.out


def test_explain_a_pod_that_was_bound_past_us(run: Run, tmp_path: Path) -> None:
    pod = make_pod("p", "a").gpu_fraction("0.5").on_node("n", "Running").build()
    path = written(tmp_path / "c.json", [make_node("n").gpus(1, mib=CARD).build(), pod])
    ended = run("explain", "--snapshot", str(path), "a/p")
    assert ended.code == 0
    assert "\nwrong: asks for a share but was bound without one\n" in ended.out


def test_explain_unknown(run: Run, snapshot: Path) -> None:
    ended = run("explain", "--snapshot", str(snapshot), "team-a/nobody")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("gpu-extender: ")
    assert "pod team-a/nobody is not known" in ended.err


def test_explain_where_only_kube_scheduler_objects(run: Run, tmp_path: Path) -> None:
    node = make_node("n").gpus(1, mib=CARD).build()
    node["spec"] = {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]}
    path = written(tmp_path / "c.json", [node, make_pod("p", "a").gpu_memory(4096).build()])
    ended = run("explain", "--snapshot", str(path), "a/p")
    assert "none of 1 nodes would take it:\n  1 node  kube-scheduler: untolerated taint nvidia.com/gpu" in ended.out
    assert ended.code == 1


def test_check(run: Run, snapshot: Path, tmp_path: Path) -> None:
    assert run("check", "--snapshot", str(snapshot)) == (0, "no differences\n", "")
    lost = [item for item in items() if item["metadata"]["name"] != "share-1"]
    ended = run("check", "--snapshot", str(written(tmp_path / "lost.json", lost)))
    assert ended.code == 1
    device = "GPU-11111111-2222-3333-4444-555555555555"
    assert ended.out == f"lost: share-1: no reservation pod holds device {device}, used by team-a/llm-0\n"


def test_simulate(run: Run, snapshot: Path, tmp_path: Path) -> None:
    ended = run("simulate", "--snapshot", str(snapshot))
    assert ended.code == 1, "some pods wait"
    assert ended.err == ""
    reads_well(ended.out)
    assert "team-a/waiting" in ended.out
    assert "team-a/too-big waits:" in ended.out
    assert "1 of 3 pods placed, 2 wait" in ended.out
    fitting = [item for item in items() if item["metadata"]["name"] not in ("too-big", "wrong")]
    more = written(tmp_path / "more.json", [make_pod("more").gpu_fraction("0.25").build()])
    all_placed = run("simulate", "--snapshot", str(written(tmp_path / "fitting.json", fitting)), str(more))
    assert all_placed.code == 0
    assert "2 of 2 pods placed, 0 wait" in all_placed.out


def test_simulate_touches_nothing(run: Run, snapshot: Path) -> None:
    before = snapshot.read_bytes()
    first = run("simulate", "--snapshot", str(snapshot), "-o", "json")
    assert run("simulate", "--snapshot", str(snapshot), "-o", "json").out == first.out
    assert snapshot.read_bytes() == before


@pytest.mark.parametrize("command", [("inspect",), ("explain", "team-a/llm-0"), ("check",), ("simulate",)])
def test_json_and_yaml_say_the_same(run: Run, snapshot: Path, command: tuple[str, ...]) -> None:
    as_json = run(*command, "--snapshot", str(snapshot), "-o", "json")
    as_yaml = run(*command, "--snapshot", str(snapshot), "-o", "yaml")
    assert as_json.err == as_yaml.err == ""
    assert as_json.code == as_yaml.code
    assert json.loads(as_json.out) == yaml.safe_load(as_yaml.out)


def test_strategies_differ(run: Run, tmp_path: Path) -> None:
    nodes = [make_node(name).gpus(1, mib=CARD).build() for name in ("a", "b")]
    pods = [make_pod(f"p{i}").gpu_fraction("0.25").build() for i in range(2)]
    path = str(written(tmp_path / "cluster.json", nodes + pods))

    def nodes_used(*options: str) -> int:
        told = json.loads(run("simulate", "--snapshot", path, "-o", "json", *options).out)
        return len({pod["node"] for pod in told["pods"]})

    assert nodes_used() == nodes_used("--strategy", "binpack") == 1
    assert nodes_used("--strategy", "spread") == 2


def test_long_runs_show_progress(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [make_node("n").gpus(1, mib=CARD).pod_slots(500).build()]
    pods = [make_pod(f"p{i}").gpu_memory(100).build() for i in range(200)]
    path = str(written(tmp_path / "cluster.json", nodes + pods))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    ended = run("simulate", "--snapshot", path, "-o", "json")
    assert ended.code == 0
    assert "scheduling" in ended.err
    assert len(json.loads(ended.out)["pods"]) == 200, "progress goes to stderr, the answer stays clean"
    few = str(written(tmp_path / "few.json", nodes + pods[:3]))
    assert run("simulate", "--snapshot", few, "-o", "json").err == ""


def test_a_running_service_gives_the_same_answers(run: Run, start: Start, snapshot: Path) -> None:
    served = start("--snapshot", str(snapshot))
    for command in (("inspect",), ("explain", "team-a/llm-0"), ("check",)):
        by_server = run(*command, "--server", served.url)
        assert by_server == run(*command, "--snapshot", str(snapshot))
        assert by_server.code == 0


def test_a_flag_beats_the_environment(run: Run, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_EXTENDER_SERVER", "http://127.0.0.1:9")
    assert "--server http://127.0.0.1:9: " in run("inspect").err
    assert "--server http://127.0.0.1:7: " in run("inspect", "--server", "http://127.0.0.1:7").err
    assert run("inspect", "--snapshot", str(snapshot)).code == 0


def test_names_are_no_markup(run: Run, tmp_path: Path) -> None:
    node = make_node("n").gpus(1, product="[red]X[/red]").build()
    ended = run("inspect", "--snapshot", str(written(tmp_path / "c.json", [node])))
    assert "[red]X[/red]" in ended.out


def test_standard_input(snapshot: Path) -> None:
    command = [sys.executable, "-m", "extender", "inspect", "--snapshot", "-", "-o", "json"]
    ended = subprocess.run(command, input=snapshot.read_bytes(), capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)["totals"]["gpus"] == 10


@pytest.mark.parametrize("command", [("inspect",), ("inspect", "-o", "json"), ("inspect", "-o", "yaml"), ("check",)])
def test_a_full_disk(snapshot: Path, command: tuple[str, ...]) -> None:
    line = [sys.executable, "-m", "extender", *command, "--snapshot", str(snapshot)]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    sentence = "gpu-extender: standard output: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (2, sentence)


# --- errors -----------------------------------------------------------------------------------------------

ERRORS = [
    (("inspect", "--snapshot", "/nowhere.yaml"), "/nowhere.yaml: No such file or directory"),
    (("inspect", "--snapshot", "x", "--server", "y"), "--snapshot and --server: give one of the two"),
    (("inspect", "--server", "http://127.0.0.1:9"), "--server http://127.0.0.1:9: "),
    (("inspect", "--server", "nonsense"), "--server nonsense: "),
    (("explain", "nonsense"), "'nonsense': name the pod as NAMESPACE/POD"),
    (("explain", "a/b/c"), "'a/b/c': name the pod as NAMESPACE/POD"),
    (("simulate", "--snapshot", "/nowhere.yaml"), "/nowhere.yaml: No such file or directory"),
    (("serve", "--snapshot", "/nowhere.yaml"), "/nowhere.yaml: No such file or directory"),
    (("serve", "--port", "70000"), "flag: port is '70000'"),
    (("serve", "--config", "/nowhere.yaml"), "/nowhere.yaml"),
    (("serve", "--snapshot", "{file}", "--observe-host", "::1"), "observe-port: must be set"),
    (("serve", "--snapshot", "{file}", "--host", "256.1.1.1"), "host/port: 256.1.1.1:8888: "),
    (("serve", "--snapshot", "{file}", "--host", "a" * 70), "host/port: aaaa"),
]


@pytest.mark.parametrize(("command", "sentence"), ERRORS)
def test_an_error_is_one_line(run: Run, snapshot: Path, command: tuple[str, ...], sentence: str) -> None:
    ended = run(*(part.format(file=snapshot) for part in command))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("gpu-extender: ")
    assert ended.err.count("\n") == 1
    assert sentence in ended.err


def test_a_broken_file_names_object_and_field(run: Run, tmp_path: Path) -> None:
    broken = make_node("n").gpus(1).build()
    broken["metadata"]["labels"] = ["x"]
    ended = run("inspect", "--snapshot", str(written(tmp_path / "cluster.json", [make_node("m").build(), broken])))
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    for word in ("cluster.json", "item 2", "Node n", "metadata.labels"):
        assert word in ended.err


@pytest.mark.parametrize("command", [("inspect",), ("check",), ("explain", "a/b"), ("simulate",)])
def test_a_file_of_something_else(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n")
    ended = run(*command, "--snapshot", str(values))
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "values.yaml: document 1: Deployment web: no Node or Pod is in this file" in ended.err


def test_a_cluster_without_anything(run: Run, tmp_path: Path) -> None:
    assert run("check", "--snapshot", str(written(tmp_path / "c.json", []))) == (0, "no differences\n", "")


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("inspect", "--nonsense"), ("simulate",), ("inspect", "-o", "xml")]
)
def test_bad_usage(run: Run, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("gpu-extender: ")
    assert ended.err.count("\n") == 1


def test_a_server_that_is_no_extender(run: Run, start: Start, cluster_file: Path) -> None:
    served = start("--snapshot", str(cluster_file))
    ended = run("inspect", "--server", f"{served.url}/elsewhere")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "Not Found" in ended.err


@pytest.fixture
def elsewhere() -> Iterator[Callable[[bytes], str]]:
    """An HTTP server that answers 200 and these bytes, whatever is asked; its URL."""
    body = b""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    def answers(content: bytes) -> str:
        nonlocal body
        body = content
        return f"http://127.0.0.1:{server.server_port}"

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield answers
        server.shutdown()


@pytest.mark.parametrize("command", [("inspect",), ("inspect", "-o", "json"), ("check",), ("explain", "a/b")])
@pytest.mark.parametrize("content", [b"<html>Hello</html>", b"", b"\xff", b"{}", b"[]", b"7", b'{"nodes": []}'])
def test_a_server_that_answers_something_else(
    run: Run, elsewhere: Callable[[bytes], str], command: tuple[str, ...], content: bytes
) -> None:
    url = elsewhere(content)
    ended = run(*command, "--server", url)
    assert ended == (2, "", f"gpu-extender: --server {url}: what answers there is no gpu-extender\n")


# --- help -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.code == 0
    example = re.search(r"Example[^:]*:\s+gpu-extender\s+(\S+)", ended.out)
    assert example
    assert example[1] == command


def test_help_lists_the_commands(run: Run) -> None:
    ended = run("--help")
    assert all(re.search(rf"^  {command} ", ended.out, re.MULTILINE) for command in COMMANDS)
    assert "gpu-extender, version " in run("--version").out


def test_serve_lists_every_setting(run: Run) -> None:
    told = run("serve", "--help").out
    for option in ("--shortlist", "--strategy", "--claim-ttl", "--bind-timeout", "--max-body-mib", "--preemption"):
        assert option in told
