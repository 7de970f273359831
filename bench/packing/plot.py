"""Allocation over arrivals as an SVG picture, the same for the same numbers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.packing.curve import allocation
from bench.packing.openb import Trace
from bench.packing.replay import replay

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 460, 60, 40, 130, 50
#: Distinct to the colour-blind too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
ARRIVED = (70, 130)

Curve = Mapping[int, float]


def draw(trace: Trace, which: tuple[str, int], strategies: Sequence[str], file: Path) -> None:
    """One line per strategy."""
    curves = {strategy: allocation(replay(trace, strategy), trace.capacity) for strategy in strategies}
    file.write_text(picture(curves, f"openb {which[0]}, seed {which[1]}"), "utf-8")


def picture(curves: Mapping[str, Curve], title: str) -> str:
    """The SVG text."""
    shown = {
        name: {arrived: value for arrived, value in sorted(curve.items()) if ARRIVED[0] <= arrived <= ARRIVED[1]}
        for name, curve in curves.items()
    }
    values = [value for curve in shown.values() for value in curve.values()]
    low, high = (min(values) // 5 * 5, max(values) // 5 * 5 + 5) if values else (0, 100)
    lines = [*_axes(low, high, title)]
    for index, (name, curve) in enumerate(shown.items()):
        lines += _line(name, curve, COLOURS[index % len(COLOURS)], index, (low, high))
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *lines, "</svg>", ""])


def _x(arrived: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (arrived - ARRIVED[0]) / (ARRIVED[1] - ARRIVED[0])


def _y(value: float, low: float, high: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)


def _axes(low: float, high: float, title: str) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="{TOP - 16}" font-size="14">{title}: GPUs allocated, % of the cluster</text>'
    for value in range(int(low), int(high) + 1, 5):
        y = f"{_y(value, low, high):.1f}"
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y}" text-anchor="end" dominant-baseline="middle">{value}</text>'
    for arrived in range(ARRIVED[0], ARRIVED[1] + 1, 10):
        x = f"{_x(arrived):.1f}"
        yield f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>'
        yield f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{arrived}</text>'
    yield f'<text x="{LEFT}" y="{HEIGHT - 10}">GPUs requested so far, % of the cluster</text>'


def _line(name: str, curve: Curve, colour: str, index: int, limits: tuple[float, float]) -> Iterator[str]:
    points = " ".join(f"{_x(arrived):.1f},{_y(value, *limits):.1f}" for arrived, value in curve.items())
    yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
    y = TOP + 20 * index + 10
    x = WIDTH - RIGHT
    yield f'<line x1="{x + 12}" x2="{x + 32}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
    yield f'<text x="{x + 38}" y="{y + 4}">{name}</text>'
