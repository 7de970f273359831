"""The documentation tells what the product does: names, sentences, commands and their output are compared with it.

``python -m tests.test_docs`` writes the output of the commands anew.
"""

import ast
import inspect
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from extender.app import create_app
from extender.cli import cli
from extender.cli.source import fetch
from extender.config import ENVIRONMENT_PREFIX, Settings
from extender.core import consistency, notices
from extender.core.errors import GpuExtenderError
from extender.core.placement import REASON_TEXT
from extender.core.requests import GpuRequest, InvalidRequest, dialects, rules
from extender.live.background import Counts
from extender.service import embedded_service
from extender.snapshot import Snapshot, load_pods

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CONSOLE = re.compile(r"(?<=```console\n)\$ (?P<command>[^\n]+)\n(?P<output>.*?)(?=```)", re.S)
CLUSTER = ROOT / "examples/cluster.yaml"
CONTEXT = click.Context(cli)
#: `make run` prints what `simulate` prints, and then where it serves.
PLAYED = "gpu-extender simulate --snapshot examples/cluster.yaml"
SERVING = "\nserving on "


def read(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the one table under a heading, head and rule left out."""
    section = read(page).partition(f"\n{heading}\n")[2]
    lines = list(_table(section.splitlines()))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def code(page: str, heading: str) -> list[list[str]]:
    """The command lines of each block of shell code under a heading, continued ones in one."""
    section = re.split(r"^## ", read(page).partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.M)[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.S)
    return [[line for line in block.replace("\\\n", " ").splitlines() if line.strip()] for block in blocks]


def _table(lines: Sequence[str]) -> Iterator[str]:
    started = False
    for line in lines:
        if line.startswith("|"):
            started = True
            yield line
        elif started or line.startswith("#"):
            return


# --- nothing is left out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_has_its_row(name: str) -> None:
    field = Settings.model_fields[name]
    default = "" if field.default is None else "off" if field.default is False else f"`{field.default}`"
    expected = row(f"`{name.replace('_', '-')}`", f"`{ENVIRONMENT_PREFIX}{name.upper()}`", default, field.description)
    assert expected in read("docs/configuration.md").splitlines()


def test_no_setting_is_made_up() -> None:
    told = {cells[0].strip("`") for cells in rows("docs/configuration.md", "## Settings")}
    assert told == {name.replace("_", "-") for name in Settings.model_fields}


@pytest.mark.parametrize("command", cli.list_commands(CONTEXT))
def test_a_command_is_told(command: str) -> None:
    assert [cells for cells in rows("README.md", "## Commands") if cells[0].startswith(f"`{command}")]


def test_metrics_are_those_of_the_service() -> None:
    text = fetch("/metrics", CLUSTER, None).text
    # The client library adds when each counter began, under a name of its own.
    there = {name for name in re.findall(r"^# HELP (\S+)", text, re.M) if not name.endswith("_created")}
    # Those of the background work, which the embedded cluster does without.
    parts: Any = SimpleNamespace(sent=0, dropped=0, is_leader=False)
    for metric in Counts(parts, parts, parts).collect():
        there.add(f"{metric.name}_total" if metric.type == "counter" else metric.name)
    told = {cells[0].strip("`").partition("{")[0] for cells in rows("docs/configuration.md", "## Metrics")}
    assert told == there


def test_metrics_that_ask_for_something_are_among_them() -> None:
    there = {cells[0].strip("`").partition("{")[0] for cells in rows("docs/configuration.md", "## Metrics")}
    told = [set(re.findall(r"gpu_extender_\w+", text)) for text in read("docs/operations.md").splitlines()]
    assert set().union(*told) <= there
    assert len(rows("docs/operations.md", "## Metrics that ask for something")) > 10


def test_reasons_of_nodes_are_those_of_the_product() -> None:
    told = {cells[0].strip("`"): cells[1] for cells in rows("docs/inventory.md", "## Reasons")}
    assert told == dict(REASON_TEXT)


def test_events_are_those_of_the_product() -> None:
    told = [(cells[0].strip("`"), cells[1], cells[2]) for cells in rows("docs/operations.md", "## Events")]
    types = {reason: "Warning" if reason in notices.WARNINGS else "Normal" for reason in notices.MEANING}
    assert told == [(reason, types[reason], meaning) for reason, meaning in notices.MEANING.items()]


def test_differences_are_those_that_check_finds() -> None:
    found = {call.args[0].value for call in _calls(consistency, "Difference") if isinstance(call.args[0], ast.Constant)}
    assert {cells[0].strip("`") for cells in rows("docs/embedded.md", "## check")} == found


def test_paths_are_those_of_the_service() -> None:
    app = create_app(embedded_service(Settings(), Snapshot()))
    built_in = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
    there = {path for route in app.routes if (path := getattr(route, "path", "")) not in built_in}
    told = {cells[0].strip("`").split()[-1] for cells in rows("docs/architecture.md", "## HTTP")}
    assert told == there


# --- the pods that pages print ---------------------------------------------------------------------------


def _printed_pods() -> Iterator[Any]:
    for page in ("README.md", "docs/requests.md"):
        for block in re.findall(r"```yaml\n(.*?)```", read(page), re.S):
            pod = yaml.safe_load(block)
            if pod.get("kind") == "Pod":
                yield pytest.param(pod, id=f"{page}: {pod['metadata']['name']}")


@pytest.mark.parametrize("pod", list(_printed_pods()))
def test_a_pod_that_a_page_prints_is_placed_on_the_example_cluster(pod: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "pod.json"
    path.write_text(json.dumps(pod), "utf-8")
    told = CliRunner().invoke(cli, ["simulate", "--snapshot", str(CLUSTER), "-o", "json", str(path)])
    [outcome] = [o for o in json.loads(told.output)["pods"] if o["pod"] == pod["metadata"]["name"]]
    assert outcome["node"] is not None, outcome


# --- requests and their refusals --------------------------------------------------------------------------


def _pod(written: str) -> dict[str, Any]:
    """A pod with containers ``main`` and ``side``; GPU resources are ``main``'s limits."""
    said = yaml.safe_load(written)
    limits = {key: value for key, value in said.items() if _is_resource(key)}
    annotations = {key: value for key, value in said.items() if not _is_resource(key)}
    containers = [{"name": "main", "resources": {"limits": limits}}, {"name": "side"}]
    return {"metadata": {"annotations": annotations}, "spec": {"containers": containers}}


def _is_resource(key: str) -> bool:
    return key.startswith("nvidia.com/") and not key.startswith("nvidia.com/container.")


REFUSALS = [(cells[0].strip("`"), cells[1].strip("`")) for cells in rows("docs/requests.md", "## Refusals")]


@pytest.mark.parametrize(("written", "sentence"), REFUSALS)
def test_a_refusal_reads_like_that(written: str, sentence: str) -> None:
    assert GpuRequest.from_pod(_pod(written)) == InvalidRequest(sentence)


def _calls(module: Any, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and getattr(called, "attr", getattr(called, "id", "")) == name:
            yield node


def _rules() -> Iterator[str]:
    """What each refusal says, up to the first part that varies."""
    for call in _calls(rules, "but"):
        text = call.args[0]
        parts = text.values if isinstance(text, ast.JoinedStr) else [text]
        assert isinstance(parts[0], ast.Constant)
        yield f" but {parts[0].value!s}"
    for form in {*dialects._FORMS.values(), *dialects._CONTAINER_FORMS.values()}:
        yield f" but must be {form.rule}"


@pytest.mark.parametrize("rule", sorted(set(_rules())))
def test_every_rule_is_shown(rule: str) -> None:
    assert rule in read("docs/requests.md")


def _manifests() -> Iterator[Any]:
    for page in PAGES:
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.S):
            if "kind: Pod" in block:
                yield pytest.param(yaml.safe_load(block), id=page.name)
    for path in sorted((ROOT / "examples/pods").glob("*.yaml")):
        yield pytest.param(load_pods(path)[0], id=path.name)


@pytest.mark.parametrize("pod", list(_manifests()))
def test_an_example_pod_is_a_request(pod: dict[str, Any]) -> None:
    request = GpuRequest.from_pod(pod)
    assert isinstance(request, GpuRequest)
    assert request.asks_for_gpu
    assert pod["spec"]["schedulerName"] == "gpu-scheduler"


# --- commands and links -----------------------------------------------------------------------------------


def _commands() -> Iterator[Any]:
    """Every command line of ours in a block of code, and what it prints where the page shows that."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in CONSOLE.finditer(text):
            yield pytest.param(match["command"], match["output"], id=f"{page.name}: {match['command']}")
        for block in re.findall(r"```sh\n(.*?)```", text, re.S):
            for line in block.replace("\\\n", " ").splitlines():
                yield pytest.param(line, None, id=f"{page.name}: {line}")


@pytest.mark.parametrize(("line", "output"), list(_commands()))
def test_a_command_exists_and_prints_that(line: str, output: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(line, comments=True)
    if words[:1] == ["make"]:
        assert re.search(rf"^{words[1]}:", read("Makefile"), re.M)
    elif words and Path(words[0]).name == "gpu-extender":
        _parses(words[1:])
    if output is not None:
        assert _body(output) == _body(printed(line)), "python -m tests.test_docs writes it anew"


def _parses(words: Sequence[str]) -> None:
    command = cli.get_command(CONTEXT, words[0])
    assert command is not None, f"there is no command {words[0]}"
    with click.Context(command) as context:
        command.parse_args(context, [word for word in words[1:] if word not in ("--help", "-h")])


def _body(output: str) -> str:
    return output.partition(SERVING)[0].strip()


def printed(line: str) -> str:
    """What a command prints, in 80 columns and without colour."""
    words = shlex.split(PLAYED if line == "make run" else line)[1:]
    result = CliRunner().invoke(cli, words)
    if isinstance(result.exception, GpuExtenderError):
        return f"gpu-extender: {result.exception}\n"
    assert result.exit_code in (0, 1), result.output
    return result.output


def _links() -> Iterator[Any]:
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                yield pytest.param(page, target, id=f"{page.name}: {target}")


@pytest.mark.parametrize(("page", "target"), list(_links()))
def test_a_link_resolves(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.M)
        assert anchor in {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:extender|tests|bench|loadtest|examples|docs)/[\w./-]*)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_output_fits_80_columns(page: Path) -> None:
    shown = [line for match in CONSOLE.finditer(page.read_text("utf-8")) for line in match["output"].splitlines()]
    assert [line for line in shown if len(line) > 80] == []


def write() -> None:
    """Put what the commands print now into the pages."""
    os.chdir(ROOT)
    for page in PAGES:
        text = page.read_text("utf-8")
        page.write_text(CONSOLE.sub(_fresh, text), "utf-8")


def _fresh(match: re.Match[str]) -> str:
    tail = match["output"].partition(SERVING)[2]
    return f"$ {match['command']}\n{printed(match['command'])}" + (f"{SERVING}{tail}" if tail else "")


if __name__ == "__main__":
    write()
