"""What the command line prints for people: 80 columns, names in one piece, nothing interpreted."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from rich.console import Console

from extender.cli import cli
from extender.cli.look import _against, _numbers, _terms
from extender.cli.tables import Name, compact, counted, plain, show, table
from tests.builders import make_node, make_pod

LONG_NODE = "ip-10-180-127-203.eu-central-1.compute.internal"


def lines(renderable: Any, width: int = 80) -> list[str]:
    console = Console(width=width, force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(renderable)
    return [line.rstrip() for line in captured.get().rstrip("\n").split("\n")]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (21, ["team-nlp/embeddings-0"]),
        (20, ["team-nlp/", "embeddings-0"]),
        (12, ["team-nlp/", "embeddings-0"]),
        (11, ["team-nlp/", "embeddings-", "0"]),
        (5, ["team-", "nlp/", "embed", "dings", "-0"]),
    ],
)
def test_a_name_is_broken_where_it_hurts_least(width: int, shown: list[str]) -> None:
    rendered = lines(Name("team-nlp/embeddings-0"), width)
    assert "".join(rendered) == "team-nlp/embeddings-0"
    assert all(len(line) <= width for line in rendered)
    if width > 5:
        assert rendered == shown


def test_a_long_name_is_broken_at_its_parts_where_columns_are_short_of_room() -> None:
    made = table("NODE", "WHY")
    made.add_row(Name(LONG_NODE), plain("no shared GPU has room and none is free, and so on and on"))
    column = [line.split("  ")[0] for line in lines(made)[1:3]]
    assert column == ["ip-10-180-127-203.eu-central-1.", "compute.internal"]


def test_a_name_that_fits_stays_whole() -> None:
    made = table("NODE", "WHY")
    made.add_row(Name(LONG_NODE), plain("node has no GPU"))
    assert lines(made)[1].split("  ")[0] == LONG_NODE


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "[/]", "[link=http://x]y", "\\[red]", ":smile:"])
def test_names_are_not_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = table("A", "B")
    made.add_row(Name(name), plain(name))
    assert lines(made)[1].split() == [name, name]
    show(Console(width=80), plain(name), counted({name: 1}))
    assert capsys.readouterr().out == f"{name}\n  1 node  {name}\n"


def test_reasons_are_one_per_line_most_first() -> None:
    reasons = {"a": 1, "b " * 60: 12, "c": 2}
    shown = lines(counted(reasons))
    assert shown[0].startswith("  12 nodes  b b")
    assert shown[1].startswith(" " * 12 + "b")
    assert shown[-2:] == ["   2 nodes  c", "   1 node   a"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.00292969, "0.00293"),
        (20480.0, "20.5k"),
        (2.0**30, "1.07G"),
        (-1234567.0, "-1.23M"),
        (999.4, "999"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert compact(value) == shown


def test_zero_terms_are_left_out() -> None:
    assert _terms({"GPUs opened": 0.0, "free whole GPUs": 3.0}) == "best: free whole GPUs 3"
    assert _terms({"GPUs opened": 0.0}) == "best"


def test_what_decides_is_the_term_that_costs_most_beyond_the_best_and_its_amount_is_told() -> None:
    def node(opened: float, left: float) -> Any:
        amounts = {"GPUs opened": opened, "MiB left": left}
        return {"amounts": amounts, "cost": {"GPUs opened": 1024 * opened, "MiB left": left}}

    best = node(0.0, 900.0)
    assert _against(node(2.0, 950.0), best) == "more GPUs opened: 2 against 0"
    assert _against(best, best) == "costs the same as the best"


@pytest.mark.parametrize(
    ("shortfall", "shown"),
    [
        ({"asked": 8, "free": 4, "largest": 4, "resolvable": True}, "r (asked 8 GPU, free 4)"),
        ({"asked": 8, "free": 0, "largest": 0, "resolvable": True}, "r (asked 8 GPU, free 0)"),
        ({"asked": 8, "free": 3, "largest": 4, "resolvable": False}, "r (asked 8 GPU, free 3, at most 4)"),
        ({"asked": 8, "free": 0, "largest": 4, "resolvable": False}, "r (asked 8 GPU, at most 4)"),
        ({"asked": 8, "free": 0, "largest": 0, "resolvable": False}, "r"),
        ({"asked": 0, "free": 0, "largest": 0, "resolvable": False}, "r"),
    ],
)
def test_numbers_stand_where_they_tell_something(shortfall: Mapping[str, Any], shown: str) -> None:
    assert _numbers({"unit": "GPU", **shortfall}, "r") == shown


@pytest.fixture
def snapshot(tmp_path: Any) -> str:
    """A node and pods of long names, one of which fits nowhere."""
    node = make_node(LONG_NODE).gpus(2, mib=81920).build()
    pods = [
        make_pod(f"text-generation-inference-{part}-0", namespace="research-and-development").gpu_fraction(part).build()
        for part in ("0.5", "0.25")
    ]
    pods += [make_pod("too-large-0", namespace="research-and-development").gpu_memory(90000).build()]
    path = tmp_path / "cluster.json"
    path.write_bytes(orjson.dumps({"apiVersion": "v1", "kind": "List", "items": [node, *pods]}))
    return str(path)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["inspect"], 0),
        (["simulate"], 1),
        (["check"], 0),
        (["explain", "research-and-development/text-generation-inference-0.5-0"], 0),
        (["explain", "research-and-development/too-large-0"], 1),
    ],
)
def test_long_names_stay_within_80_columns(snapshot: str, words: list[str], status: int) -> None:
    result = CliRunner().invoke(cli, [*words, "--snapshot", snapshot])
    assert result.exit_code == status, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    if words[0] != "check":
        assert LONG_NODE.partition(".")[0] in result.output


def test_a_pod_that_fits_nowhere_leads_with_how_many_nodes_say_why(snapshot: str) -> None:
    result = CliRunner().invoke(cli, ["explain", "research-and-development/too-large-0", "--snapshot", snapshot])
    second = result.output.splitlines()[1]
    assert second == "none of 1 nodes would take it: the share is larger than a GPU of this node (1)"
