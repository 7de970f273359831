"""``inspect``, ``explain`` and ``check``: they look and change nothing."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click
from rich.console import RenderableType
from rich.table import Table

from extender.cli.source import fetch_json, source_options
from extender.cli.tables import Name, compact, console, counted, emit, gib, plain, show, table, write
from extender.core.errors import InputError

Json = Mapping[str, Any]

#: Columns of a summary that is still one line.
LINE: Final = 80
#: Before what is kube-scheduler's word and not ours.
SCHEDULER: Final = "kube-scheduler: "


@click.command(epilog="Example: gpu-extender inspect --snapshot examples/cluster.yaml")
@source_options
def inspect(snapshot: Path | None, server: str | None, output: str) -> None:
    """Every GPU: who holds what."""
    seen = fetch_json("/inspect", ("nodes", "totals"), snapshot, server)
    if emit(seen, output):
        return
    parts: list[RenderableType] = [_node_table(seen["nodes"])]
    if any(node["sharedGpus"] for node in seen["nodes"]):
        parts += [plain(""), _share_table(seen["nodes"])]
    totals = seen["totals"]
    held = f"{gib(totals['usedMiB'])} of {gib(totals['memoryMiB'])} GiB held by {totals['pods']} pods"
    show(console(), *parts, plain(f"\n{totals['gpus']} GPUs, {held}"))


def _node_table(nodes: Iterable[Json]) -> Table:
    """One row for each node."""
    shown = table("NODE", "GPUS", "GiB", "STATE", "HELD AND FREE", numbers=("GiB",))
    for node in nodes:
        memory = node["memoryMiB"]
        state = node["unusable"] or (node["mode"] if node["mode"] != "none" else "")
        cells = (_gpus(node), gib(memory) if memory else "", state, _held(node))
        shown.add_row(Name(node["name"]), *map(plain, cells))
    return shown


def _gpus(node: Json) -> str:
    count = node["physicalGpus"]
    product = (node["product"] or "GPU").removeprefix("NVIDIA-")
    return "no GPU" if count == 0 else f"{'?' if count is None else count} x {product}"


def _held(node: Json) -> str:
    held, shared = node["wholeGpusHeld"], len(node["sharedGpus"])
    free = max(0, node["wholeGpus"] - held - shared)
    units = [f"{count} {resource.removeprefix('nvidia.com/')}" for resource, count in node["units"].items()]
    if not node["wholeGpus"] and not held and not shared:
        return ", ".join(units)
    counts = [f"{held} held" if held else "", f"{shared} shared" if shared else "", f"{free} free"]
    return ", ".join([*filter(None, counts), *units])


def _share_table(nodes: Iterable[Json]) -> Table:
    """One row for each share."""
    shown = table("SHARED GPU", "NODE", "STATE", "GiB USED", "GiB EACH", "HELD BY", numbers=("GiB USED", "GiB EACH"))
    for node in nodes:
        for gpu in node["sharedGpus"]:
            used = f"{gib(gpu['usedMiB'])} of {gib(gpu['memoryMiB'])}"
            uuid = plain((gpu["uuid"] or gpu["id"])[:12])
            first: list[RenderableType] = [uuid, Name(node["name"]), plain(gpu["state"]), plain(used)]
            for share in gpu["shares"]:
                shown.add_row(*first, plain(gib(share["memoryMiB"])), Name(f"{share['namespace']}/{share['pod']}"))
                first = [plain("")] * len(first)
            if not gpu["shares"]:
                shown.add_row(*first, plain(""), plain("nobody"))
    return shown


@click.command(epilog="Example: gpu-extender explain --snapshot examples/cluster.yaml team-nlp/llm-chat-0")
@click.argument("pod", metavar="NAMESPACE/POD")
@source_options
def explain(pod: str, snapshot: Path | None, server: str | None, output: str) -> None:
    """Why a pod is where it is, or why it is nowhere."""
    namespace, slash, name = pod.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise InputError(f"{pod!r}: name the pod as NAMESPACE/POD")
    path = f"/explain/{quote(namespace, safe='')}/{quote(name, safe='')}"
    told = fetch_json(path, ("invalid", "state", "nodes"), snapshot, server)
    if not emit(told, output):
        _print_explanation(told)
    if told["invalid"] or (told["state"] == "pending" and not any(map(_takes, told["nodes"]))):
        sys.exit(1)


def _print_explanation(told: Json) -> None:
    parts: list[RenderableType] = [plain(f"{told['namespace']}/{told['pod']}: {_headline(told)}")]
    parts += [plain(f"wrong: {difference}") for difference in told["differences"]]
    parts += [plain(f"not looked at here: {rule}") for rule in told["notApplied"]]
    nodes = told["nodes"]
    if nodes:
        parts += [*_summary(told), plain(""), _verdict_table(nodes)]
    show(console(), *parts)


def _summary(told: Json) -> list[RenderableType]:
    """What holds for all the nodes together."""
    nodes = told["nodes"]
    if told["state"] != "pending":
        return [plain("where it would fit if it were not there:")]
    takers = sum(_takes(node) for node in nodes)
    if takers:
        return [plain(f"{takers} of {len(nodes)} nodes would take it")]
    reasons = Counter(node["reason"] for node in nodes if not node["fits"])
    reasons += Counter(f"{SCHEDULER}{text}" for node in nodes if node["fits"] for text in node["scheduler"])
    lead = f"none of {len(nodes)} nodes would take it"
    line = f"{lead}: " + "; ".join(f"{text} ({count})" for text, count in reasons.most_common())
    return [plain(line)] if len(line) <= LINE else [plain(f"{lead}:"), counted(reasons)]


def _takes(node: Json) -> bool:
    """Whether both the extender and kube-scheduler agree to that node."""
    return node["fits"] and not node["scheduler"]


def _verdict_table(nodes: Sequence[Json]) -> Table:
    shown = table("NODE", "FITS", "SCORE", "WHY", numbers=("SCORE",))
    ordered = sorted(nodes, key=lambda node: (not node["fits"], not _takes(node), -(node["score"] or 0)))
    best = ordered[0]
    for node in ordered:
        fits = "yes" if node["fits"] else "no"
        why = "\n".join(_why(node, best))
        shown.add_row(Name(node["name"]), plain(fits), plain(node["score"]), plain(why))
    return shown


def _headline(told: Json) -> str:
    if told["invalid"]:
        return f"refused: {told['invalid']}"
    asked = _request(told["request"])
    if told["state"] == "bound":
        where = f"on node {told['node']}"
        devices = ", ".join(uuid or "?" for uuid in told["visibleDevices"])
        return f"{told['state']} {where}" + (f", device {devices}" if devices else "") + f"; asks for {asked}"
    return f"{told['state']}; asks for {asked}"


def _request(request: Json) -> str:
    if "devices" not in request:
        gpus = ", ".join(f"{count} {resource}" for resource, count in request["gpus"].items())
        return gpus or "no GPU"
    size = f"{request['fraction']} of a GPU" if "fraction" in request else f"{request['memoryMiB']} MiB"
    return size if request["devices"] == 1 else f"{size} on each of {request['devices']} GPUs"


def _why(node: Json, best: Json) -> Iterator[str]:
    """One reason per line: ours, then kube-scheduler's. ``best`` is the first of all nodes."""
    if not node["fits"]:
        yield from (_numbers(shortfall, node["reason"]) for shortfall in node["shortfalls"])
    elif _takes(node):
        yield _terms(node["amounts"]) if node is best else _against(node, best)
    if node["scheduler"]:
        yield SCHEDULER + ", ".join(node["scheduler"])


def _numbers(shortfall: Json, reason: str) -> str:
    """The reason, with numbers where they tell more than that there is nothing."""
    asked, free, largest = shortfall["asked"], shortfall["free"], shortfall["largest"]
    if not asked or not (free or largest or shortfall["resolvable"]):
        return reason
    parts = [f"asked {asked} {shortfall['unit']}"]
    if free or not largest:
        parts.append(f"free {free}")
    if largest != free:
        parts.append(f"at most {largest}")
    return f"{reason} ({', '.join(parts)})"


def _terms(amounts: Json) -> str:
    terms = ", ".join(f"{term} {compact(amount)}" for term, amount in amounts.items() if amount)
    return f"best: {terms}" if terms else "best"


def _against(node: Json, best: Json) -> str:
    """What decides against a node: the term in which it costs most beyond the best one."""
    behind = {term: cost - best["cost"].get(term, 0) for term, cost in node["cost"].items()}
    term = max(behind, key=behind.__getitem__, default=None)
    if term is None or behind[term] <= 0:
        return "costs the same as the best"
    return f"more {term}: {compact(node['amounts'][term])} against {compact(best['amounts'].get(term, 0))}"


@click.command(epilog="Example: gpu-extender check --server http://127.0.0.1:8888")
@source_options
def check(snapshot: Path | None, server: str | None, output: str) -> None:
    """Ledger against API and reservation pods, one line per difference.

    With --snapshot: where the file contradicts itself.
    """
    found = fetch_json("/check", ("differences",), snapshot, server)
    if not emit(found, output):
        for difference in found["differences"]:
            write(f"{difference['kind']}: {difference['object']}: {difference['text']}")
        if not found["differences"]:
            write("no differences")
    if found["differences"]:
        sys.exit(1)
