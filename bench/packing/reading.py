"""Traces from a directory: the published tables, and the orders in which pods arrive and nodes stand.

Orders are not published with them. Where ``arrivals/`` has none for a trace and a seed they are drawn by the seed: in
the paper's way, but not the paper's own.
"""

import csv
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Final, TypeVar

from bench.packing.openb import GPU_MIB, Trace, TraceNode, TracePod
from extender.core.errors import InputError

NODES: Final = "openb_node_list_gpu_node.csv"
#: Pods arrive until they have asked for so many times the capacity.
ENOUGH: Final = 1.3

T = TypeVar("T", TraceNode, TracePod)


def read_trace(directory: Path, trace: str, seed: int) -> Trace:
    """Raises InputError that names file, line, field and value."""
    nodes = _table(directory / NODES, TraceNode.of)
    if not any(node.gpus for node in nodes.values()):
        raise InputError(f"{directory / NODES}: no node has a GPU")
    file = directory / f"openb_pod_list_{trace}.csv"
    pods = _table(file, TracePod.of)
    if not any(pod.milli for pod in pods.values()):
        raise InputError(f"{file}: no pod asks for a GPU")
    order = directory / "arrivals" / f"{trace}-{seed}-nodes.txt"
    stand = _ordered(order, nodes, NODES) or _shuffled(nodes.values(), Random(f"{seed}/nodes"))
    if sorted(node.name for node in stand) != sorted(nodes):
        raise InputError(f"{order}: must name each node of {NODES} once")
    given = _ordered(directory / "arrivals" / f"{trace}-{seed}.txt", pods, file.name)
    wanted = ENOUGH * sum(node.gpus for node in nodes.values()) * GPU_MIB
    arrivals = given or tuple(_drawn(list(pods.values()), wanted, Random(f"{seed}/arrivals")))
    return Trace(stand, pods, arrivals, drawn=not given)


def _table(path: Path, of: Callable[[Mapping[str, str | None]], T]) -> dict[str, T]:
    """The lines by name."""
    text = _text(path)
    if text is None:
        raise InputError(f"{path}: there is no such file")
    found: dict[str, T] = {}
    for number, line in enumerate(csv.DictReader(text.splitlines()), start=2):
        try:
            one = of(line)
        except InputError as error:
            raise InputError(f"{path}: line {number}: {error}") from None
        if one.name in found:
            raise InputError(f"{path}: line {number}: {one.name} occurs twice")
        found[one.name] = one
    return found


def _ordered(path: Path, by_name: Mapping[str, T], table: str) -> tuple[T, ...]:
    """Nothing where there is no such file."""
    text = _text(path)
    if text is None:
        return ()
    names = text.split()
    if not names:
        raise InputError(f"{path}: names nothing")
    unknown = next((name for name in names if name not in by_name), None)
    if unknown is not None:
        raise InputError(f"{path}: {unknown!r} is not in {table}")
    return tuple(by_name[name] for name in names)


def _text(path: Path) -> str | None:
    """None where there is no such file."""
    try:
        return path.read_text("utf-8-sig")  # Excel puts a mark in front.
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error}") from error


def _drawn(pods: list[TracePod], wanted: float, draw: Random) -> Iterator[TracePod]:
    """With replacement."""
    asked = 0
    while asked < wanted:
        pod = draw.choice(pods)
        asked += pod.milli
        yield pod


def _shuffled(nodes: Collection[TraceNode], draw: Random) -> tuple[TraceNode, ...]:
    return tuple(draw.sample(list(nodes), len(nodes)))
