"""Reading traces: with the paper's orders or without, and what is wrong in a file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.packing.__main__ import main
from bench.packing.reading import read_trace
from extender.core.errors import InputError
from extender.core.strategies import STRATEGIES

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn1,32000,131072,2,A\nn2,32000,131072,8,B\nn3,32000,131072,0,B\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,qos\np1,1000,1024,1,400,LS\np2,1000,1024,0,0,BE\n"
NUMBER = "must be a whole number of at most 12 digits"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """As it is published: two tables, no orders."""
    (tmp_path / "openb_node_list_gpu_node.csv").write_text(NODES)
    (tmp_path / "openb_pod_list_tiny.csv").write_text(PODS)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Callable[..., None]:
    """The command on the directory, with these arguments besides."""

    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["packing", str(directory), "--trace", "tiny", *arguments])
        main()

    return run


def test_an_order_that_is_not_given_is_drawn_by_the_seed(directory: Path) -> None:
    first, again, other = (read_trace(directory, "tiny", seed) for seed in (1, 1, 2))
    assert first == again
    assert first.arrivals != other.arrivals
    asked = sum(pod.milli for pod in first.arrivals)
    assert 13_000 <= asked < 13_000 + 400, "until 1.3 times the capacity is asked for"
    assert {pod.name for pod in first.arrivals} == {"p1", "p2"}
    assert sorted(node.name for node in first.nodes) == ["n1", "n2", "n3"]
    assert len({read_trace(directory, "tiny", seed).nodes for seed in range(20)}) > 1


def test_a_table_may_come_from_excel(directory: Path) -> None:
    want = read_trace(directory, "tiny", 1)
    for file in directory.glob("*.csv"):
        file.write_text(file.read_text().replace("\n", "\r\n"), "utf-8-sig", newline="")
    assert read_trace(directory, "tiny", 1) == want


def test_pods_that_no_node_can_run_are_no_error(
    run: Callable[..., None], directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = directory / "openb_pod_list_tiny.csv"
    file.write_text(file.read_text().replace("1000", "99000"))
    run("--seed", "1", "--strategy", "binpack")
    assert capsys.readouterr().out.splitlines()[-1].split(" | ")[3:] == ["0.00", "-", "- |"]


def test_an_order_that_is_given_counts(directory: Path) -> None:
    (directory / "arrivals").mkdir()
    (directory / "arrivals/tiny-1.txt").write_text("p2\np1\np1\n")
    (directory / "arrivals/tiny-1-nodes.txt").write_text("n3\nn1\nn2\n")
    trace = read_trace(directory, "tiny", 1)
    assert [pod.name for pod in trace.arrivals] == ["p2", "p1", "p1"]
    assert [node.name for node in trace.nodes] == ["n3", "n1", "n2"]


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("openb_pod_list_tiny.csv", PODS.replace("400", "x"), f"line 2: gpu_milli is 'x' but {NUMBER}"),
        ("openb_pod_list_tiny.csv", PODS.replace("400", "-4"), f"line 2: gpu_milli is '-4' but {NUMBER}"),
        (
            "openb_pod_list_tiny.csv",
            PODS.replace("400", "9" * 13),
            f"line 2: gpu_milli is '9999999999999' but {NUMBER}",
        ),
        (
            "openb_pod_list_tiny.csv",
            PODS.replace("400", "0"),
            "line 2: gpu_milli is 0 but must be from 1 to 1000 where num_gpu is 1",
        ),
        (
            "openb_pod_list_tiny.csv",
            PODS.replace(",1,", ",2,"),
            "line 2: gpu_milli is 400 but must be from 1000 to 1000 where num_gpu is 2",
        ),
        (
            "openb_pod_list_tiny.csv",
            PODS.replace("0,0", "0,5"),
            "line 3: gpu_milli is 5 but must be from 0 to 0 where num_gpu is 0",
        ),
        ("openb_pod_list_tiny.csv", PODS.replace("p2", "p1"), "line 3: p1 occurs twice"),
        (
            "openb_pod_list_tiny.csv",
            PODS.replace("p2", "P_2"),
            "line 3: name is 'P_2' but must be a name as Kubernetes objects have it",
        ),
        ("openb_pod_list_tiny.csv", PODS + "p3,1000", "line 4: memory_mib is missing"),
        ("openb_pod_list_tiny.csv", PODS.replace("num_gpu", "gpus"), "line 2: num_gpu is missing"),
        ("openb_pod_list_tiny.csv", PODS.replace("1,400", "0,0"), "no pod asks for a GPU"),
        ("openb_pod_list_tiny.csv", "name\n", "no pod asks for a GPU"),
        ("openb_node_list_gpu_node.csv", NODES.replace(",8,", ",,"), f"line 3: gpu is '' but {NUMBER}"),
        ("openb_node_list_gpu_node.csv", NODES.replace("model", "m"), "line 2: model is missing"),
        ("openb_node_list_gpu_node.csv", NODES.split("n1", maxsplit=1)[0], "no node has a GPU"),
        ("arrivals/tiny-1.txt", "", "names nothing"),
        ("arrivals/tiny-1-nodes.txt", "n1 n2", "must name each node of openb_node_list_gpu_node.csv once"),
        ("arrivals/tiny-1-nodes.txt", "n1 n2 n3 n1", "must name each node of openb_node_list_gpu_node.csv once"),
        ("arrivals/tiny-1.txt", "p1 p9", "'p9' is not in openb_pod_list_tiny.csv"),
        ("arrivals/tiny-1-nodes.txt", "n1 n9", "'n9' is not in openb_node_list_gpu_node.csv"),
    ],
)
def test_says_what_is_wrong_and_where(directory: Path, file: str, content: str, complaint: str) -> None:
    (directory / "arrivals").mkdir()
    (directory / file).write_text(content)
    with pytest.raises(InputError) as error:
        read_trace(directory, "tiny", 1)
    assert str(error.value) == f"{directory / file}: {complaint}"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--trace", "none"], "openb_pod_list_none.csv: there is no such file"),
        (["--seed", "1,x"], "argument --seed: 'x' is not a whole number"),
        (["--load", "0.9,0"], "argument --load: '0' is not a number from 0.01 to 100"),
        (["--lifetimes", "nan"], "argument --lifetimes: 'nan' is not a number from 0.01 to 100"),
        (["--strategy", "best"], "argument --strategy: 'best' is none of binpack, spread, fgd, adaptive, bestfit"),
        (["--http", "--departures"], "argument --departures: not allowed with argument --http"),
        (["--plot", "none/a.svg"], "argument --plot: 'none/a.svg' is not a file in a folder that exists"),
        (["--strategy", "bestfit", "--http"], "bestfit is a part of this benchmark only, not of the service"),
    ],
)
def test_bad_arguments_are_named(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(complaint)


def test_over_http_all_strategies_of_the_service(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    run("--seed", "1", "--http")
    printed = capsys.readouterr()
    assert [line.split(" | ")[2] for line in printed.out.splitlines()[2:]] == list(STRATEGIES)
    assert "tiny-1: no arrivals/tiny-1.txt: pods are drawn by the seed" in printed.err
