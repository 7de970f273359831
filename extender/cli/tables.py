"""Tables that read well in 80 columns, in a pipe, and without colour."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click
import orjson
import yaml
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from extender.core.errors import InputError

Json = Mapping[str, Any]

# Where a name too long for its column is broken: the first of these at which every piece fits.
_BREAKS: Final = ("(?<=/)", "(?<=[/.])", "(?<=[/.-])")
_UNITS: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Name:
    """A name from a cluster, word for word: in one piece where it fits, else broken after ``/``, ``.`` or ``-``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widths = [Text(piece).cell_len for piece in _pieces(self._name, 1)]
        whole = Text(self._name).cell_len
        return Measurement(max(widths, default=0), whole).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in _lines(self._name, options.max_width):
            yield Text(line, overflow="fold")


def _pieces(name: str, width: int) -> list[str]:
    pieces = [name]
    for pattern in _BREAKS:
        if all(Text(piece).cell_len <= width for piece in pieces):
            break
        pieces = re.split(pattern, name)
    return pieces


def _lines(name: str, width: int) -> Iterator[str]:
    line = ""
    for piece in _pieces(name, width):
        if line and Text(line + piece).cell_len > width:
            yield line
            line = ""
        line += piece
    yield line


def console() -> Console:
    """Standard output; 80 columns where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 80, highlight=False, soft_wrap=False)


@contextmanager
def _to_standard_output() -> Iterator[None]:
    """Raises InputError where standard output takes nothing. Of a reader that has left click takes care."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is still buffered would fail once more when Python ends, with a text and an exit status of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise InputError(f"standard output: {error.strerror}") from error


@_to_standard_output()
def write(text: str) -> None:
    """A line, or several, to standard output."""
    click.echo(text)


def emit(content: Any, output: str) -> bool:
    """Print as JSON or YAML; False if a table is wanted."""
    if output == "json":
        write(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())
    elif output == "yaml":
        write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).removesuffix("\n"))
    return output != "table"


def table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """A table without frame; ``numbers`` are right-aligned."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        if column in numbers:
            made.add_column(column, justify="right", no_wrap=True)
        else:
            made.add_column(column, overflow="fold")
    return made


def counted(reasons: Mapping[str, int]) -> Table:
    """Reason → how many nodes say so, most first, one reason per line; long ones go on under themselves."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    width = max((len(str(count)) for count in reasons.values()), default=0)
    for reason, count in sorted(reasons.items(), key=lambda entry: -entry[1]):
        made.add_row(plain(f"  {count:>{width}} {'node' if count == 1 else 'nodes'}"), plain(reason))
    return made


@_to_standard_output()  # rich writes something, if only nothing, while it captures
def show(out: Console, *lines: RenderableType) -> None:
    """Print without the blanks with which a table fills its last column."""
    with out.capture() as captured:
        for line in lines:
            out.print(line)
    write("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def plain(value: object) -> Text:
    """Text as it is: names from a cluster are not markup."""
    return Text("-" if value is None else str(value))


def gib(mib: int | None) -> str:
    """MiB for people, in GiB with one decimal."""
    return "?" if mib is None else f"{mib / 1024:.1f}"


def compact(value: float) -> str:
    """A number for people: at most three significant digits, never an exponent above the least."""
    for size, unit in _UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
