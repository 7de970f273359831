"""``inspect``, ``explain`` and ``check``: they look and change nothing."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from extender.cli.source import fetch, ok, source_options
from extender.cli.tables import console, emit, gib, plain, table
from extender.core.errors import InputError

Json = Mapping[str, Any]


@click.command(epilog="Example: gpu-extender inspect --snapshot examples/cluster.yaml")
@source_options
def inspect(snapshot: Path | None, server: str | None, output: str) -> None:
    """Every GPU: who holds what."""
    seen = ok(fetch("/inspect", snapshot, server))
    if emit(seen, output):
        return
    out = console()
    shown = table("NODE", "GPU", "STATE", "USED", "OF GiB", "HELD BY", numbers=("USED", "OF GiB"))
    for node in seen["nodes"]:
        for row in _node_rows(node):
            shown.add_row(*(plain(cell) for cell in row))
    out.print(shown)
    totals = seen["totals"]
    out.print(
        f"\n{totals['gpus']} GPUs, {gib(totals['usedMiB'])} of {gib(totals['memoryMiB'])} GiB held by "
        f"{totals['pods']} pods"
    )


def _node_rows(node: Json) -> list[tuple[str, ...]]:
    """One row for the node, one for each shared GPU."""
    memory = node["memoryMiB"]
    held = node["wholeGpusHeld"]
    free = max(0, node["wholeGpus"] - held - len(node["sharedGpus"]))
    whole = f"{held} whole held, {free} free" if node["wholeGpus"] or held else ""
    units = ", ".join(f"{count} {resource.removeprefix('nvidia.com/')}" for resource, count in node["units"].items())
    what = "; ".join(part for part in (whole, units) if part) or "no GPU"
    state = node["unusable"] or (node["mode"] if node["mode"] != "none" else "")
    rows: list[tuple[str, ...]] = [(node["name"], _short_product(node), state, "", gib(memory) if memory else "", what)]
    for gpu in node["sharedGpus"]:
        pods = ", ".join(f"{s['namespace']}/{s['pod']} {gib(s['memoryMiB'])}" for s in gpu["shares"]) or "nobody"
        name = (gpu["uuid"] or gpu["id"])[:12]
        rows.append(("", name, gpu["state"], gib(gpu["usedMiB"]), gib(gpu["memoryMiB"]), pods))
    return rows


def _short_product(node: Json) -> str:
    count = node["physicalGpus"]
    product = (node["product"] or "GPU").removeprefix("NVIDIA-")
    if count == 0:
        return ""
    return f"{'?' if count is None else count} x {product}"


@click.command(epilog="Example: gpu-extender explain --snapshot examples/cluster.yaml team-nlp/llm-chat-0")
@click.argument("pod", metavar="NAMESPACE/POD")
@source_options
def explain(pod: str, snapshot: Path | None, server: str | None, output: str) -> None:
    """Why a pod is where it is, or why it is nowhere."""
    namespace, slash, name = pod.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise InputError(f"{pod!r}: name the pod as NAMESPACE/POD")
    told = ok(fetch(f"/explain/{quote(namespace, safe='')}/{quote(name, safe='')}", snapshot, server))
    if not emit(told, output):
        _print_explanation(told)
    if told["invalid"] or (told["state"] == "pending" and not any(node["fits"] for node in told["nodes"])):
        sys.exit(1)


def _print_explanation(told: Json) -> None:
    out = console()
    out.print(plain(f"{told['namespace']}/{told['pod']}: {_headline(told)}"))
    for rule in told["notApplied"]:
        out.print(plain(f"  not looked at here: {rule}"))
    if not told["nodes"]:
        return
    out.print()
    shown = table("NODE", "FITS", "SCORE", "WHY", numbers=("SCORE",))
    ordered = sorted(told["nodes"], key=lambda node: (not node["fits"], -(node["score"] or 0)))
    for node in ordered:
        shown.add_row(plain(node["name"]), "yes" if node["fits"] else "no", plain(node["score"]), plain(_why(node)))
    out.print(shown)


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
    size = f"{request['fraction']:g} of a GPU" if "fraction" in request else f"{request['memoryMiB']} MiB"
    return size if request["devices"] == 1 else f"{size} on each of {request['devices']} GPUs"


def _why(node: Json) -> str:
    parts = list(node["scheduler"])
    for shortfall in node["shortfalls"]:
        numbers = f"asked {shortfall['asked']} {shortfall['unit']}, free {shortfall['free']}"
        if shortfall["largest"] != shortfall["free"]:
            numbers += f", in one piece {shortfall['largest']}"
        parts.append(f"{node['reason']} ({numbers})" if shortfall["asked"] else node["reason"])
    if node["fits"] and node["cost"]:
        parts.append(", ".join(f"{term} {value:g}" for term, value in node["cost"].items()))
    return "; ".join(parts)


@click.command(epilog="Example: gpu-extender check --server http://127.0.0.1:8888")
@source_options
def check(snapshot: Path | None, server: str | None, output: str) -> None:
    """Ledger against API and reservation pods, one line per difference.

    With --snapshot: where the file contradicts itself.
    """
    found = ok(fetch("/check", snapshot, server))
    if not emit(found, output):
        for difference in found["differences"]:
            click.echo(f"{difference['kind']}: {difference['object']}: {difference['text']}")
        if not found["differences"]:
            click.echo("no differences")
    if found["differences"]:
        sys.exit(1)
