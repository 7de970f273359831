"""The benchmark on a small trace of the same form."""

import csv
import random
from pathlib import Path

import pytest

from bench.packing import departures
from bench.packing.__main__ import main
from bench.packing.bestfit import BestFit
from bench.packing.curve import allocation
from bench.packing.http import replay_over_http
from bench.packing.openb import GPU_MIB, Trace, TracePod
from bench.packing.plot import picture
from bench.packing.reading import read_trace
from bench.packing.replay import ALL, BESTFIT, Cluster, Placed, replay

POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve nodes of two models, forty pods, arrivals up to 1.3 times the capacity."""
    draw = random.Random(7)
    path = tmp_path_factory.mktemp("openb")
    (path / "arrivals").mkdir()
    nodes = [
        {"sn": f"n{i:02}", "cpu_milli": 32000, "memory_mib": 131072, "gpu": 2 + 2 * (i % 3), "model": "AB"[i % 2]}
        for i in range(12)
    ]
    pods = [_pod(draw, index) for index in range(40)]
    _write(path / "openb_node_list_gpu_node.csv", list(nodes[0]), nodes)
    _write(path / "openb_pod_list_small.csv", list(POD_COLUMNS), pods)
    order = [node["sn"] for node in nodes]
    draw.shuffle(order)
    (path / "arrivals" / "small-1-nodes.txt").write_text("\n".join(map(str, order)))
    wanted, arrivals = 1.3 * 1000 * sum(int(str(node["gpu"])) for node in nodes), []
    while wanted > 0:
        pod = draw.choice(pods)
        arrivals.append(str(pod["name"]))
        wanted -= TracePod.of({key: str(value) for key, value in pod.items()}).milli
    (path / "arrivals" / "small-1.txt").write_text("\n".join(arrivals))
    return path


def _pod(draw: random.Random, index: int) -> dict[str, object]:
    num_gpu, milli = draw.choice([(0, 0), (1, 1000), (2, 1000), (1, 810), (1, 470), (1, 320), (1, 190), (4, 1000)])
    spec = draw.choice(["", "", "", "A", "A|B"]) if num_gpu else ""
    values = (f"p{index}", draw.choice([2000, 4000, 8000]), 8192, num_gpu, milli, spec)
    return dict(zip(POD_COLUMNS, values, strict=True))


def _write(path: Path, columns: list[str], lines: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture(scope="module")
def trace(directory: Path) -> Trace:
    return read_trace(directory, "small", 1)


@pytest.mark.parametrize("strategy", ALL)
def test_no_node_is_oversubscribed_and_all_models_are_kept(trace: Trace, strategy: str) -> None:
    by_name = {node.name: node for node in trace.nodes}
    cpu: dict[str, int] = {}
    gpu: dict[str, int] = {}
    for one in replay(trace, strategy):
        if one.node is None:
            continue
        assert not one.pod.models or by_name[one.node].model in one.pod.models
        cpu[one.node] = cpu.get(one.node, 0) + one.pod.cpu_milli
        gpu[one.node] = gpu.get(one.node, 0) + one.pod.milli
    assert all(cpu[name] <= by_name[name].cpu_milli for name in cpu)
    assert all(gpu[name] <= by_name[name].gpus * GPU_MIB for name in gpu)


def test_a_reservation_pod_never_keeps_a_pod_out(trace: Trace) -> None:
    """Every pod that the rules of the paper let in is let in: CPU and memory are full to the last unit."""
    node = trace.nodes[0]
    shares = max(1, node.cpu_milli // 2000)
    pod = TracePod("x", 2000, node.memory_mib // shares, 1, 1000 // (-(-shares // node.gpus)), "")
    cluster = Cluster(Trace((node,), {"x": pod}, ()), BESTFIT)
    assert all(cluster.place(f"u{i}", pod) for i in range(shares))
    assert cluster.place("one more", pod) is None


@pytest.mark.parametrize("strategy", ["binpack", "adaptive", "fgd"])
def test_over_http_every_pod_lands_where_it_does_in_process(trace: Trace, strategy: str) -> None:
    assert list(replay_over_http(trace, strategy)) == list(replay(trace, strategy, as_published=False))


def test_a_replay_repeats(trace: Trace) -> None:
    assert list(replay(trace, "adaptive")) == list(replay(trace, "adaptive"))


def test_best_fit_takes_the_fullest_node_and_the_tightest_gpu(trace: Trace) -> None:
    cluster = Cluster(trace, BestFit.name)
    share, small = (TracePod(f"s{m}", 1000, 1, 1, m, "") for m in (700, 200))
    first = cluster.place("a", share)
    assert cluster.place("b", small) == first
    held = cluster.decisions.ledger.pod("b")
    assert held is not None
    assert held.shares[0].gpu_id == cluster.decisions.ledger.pod("a").shares[0].gpu_id  # type: ignore[union-attr]


def test_a_pod_that_leaves_gives_everything_back(trace: Trace) -> None:
    cluster = Cluster(trace, "adaptive")
    empty = list(cluster.decisions.ledger.snapshot())
    running = [(f"u{i}", pod, node) for i, pod in enumerate(trace.arrivals) if (node := cluster.place(f"u{i}", pod))]
    for uid, pod, node in running:
        cluster.leave(uid, pod, node)
    assert list(cluster.decisions.ledger.snapshot()) == empty


def test_the_metric_is_the_mean_over_the_arrivals_of_a_bin() -> None:
    pod = TracePod("p", 0, 0, 1, 400, "")
    placed = [Placed("a", pod, "n"), Placed("b", pod, None), Placed("c", pod, "n")]
    assert allocation(placed, 100_000) == {0: pytest.approx(0.4), 1: pytest.approx((0.4 + 0.8) / 2)}


@pytest.mark.parametrize("lifetimes", [40.0, 80.0])
def test_departures_reach_the_offered_load_where_nothing_is_rejected(trace: Trace, lifetimes: float) -> None:
    found = departures.run(trace, "binpack", 0.3, seed=1, lifetimes=lifetimes)
    assert found.rejected_demand < 2
    assert found.allocation == pytest.approx(30, abs=5)
    assert found.time == pytest.approx(lifetimes)


def test_strategies_meet_the_same_pods(trace: Trace) -> None:
    asked = {departures.run(trace, strategy, 1.0, seed=1).asked for strategy in ("binpack", "adaptive")}
    assert len(asked) == 1


def test_the_command_prints_tables_and_draws(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture_file = tmp_path / "packing.svg"
    common = ["packing", str(directory), "--trace", "small", "--seed", "1", "--strategy", "binpack"]
    for more in ([], ["--departures", "--load", "0.5"], ["--http"], ["--plot", str(picture_file)]):
        monkeypatch.setattr("sys.argv", [*common, *more])
        main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| small")]
    assert len(lines) == 3
    assert lines[2].split(" | ")[5] == "0", "the same placements over HTTP"
    assert picture_file.read_text().count("<polyline") == 1


def test_a_picture_needs_no_points() -> None:
    assert picture({"none": {}}, "title").endswith("</svg>\n")
