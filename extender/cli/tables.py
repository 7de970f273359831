"""Tables that read well in 80 columns, in a pipe, and without colour."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click
import orjson
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]


def console() -> Console:
    """Standard output; 80 columns where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 80, highlight=False, soft_wrap=False)


def emit(content: Any, output: str) -> bool:
    """Print as JSON or YAML; False if a table is wanted."""
    if output == "json":
        click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())
    elif output == "yaml":
        click.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), nl=False)
    return output != "table"


def table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """A table without frame; ``numbers`` are right-aligned."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        if column in numbers:
            made.add_column(column, justify="right", no_wrap=True)
        else:
            made.add_column(column, overflow="fold")
    return made


def plain(value: object) -> Text:
    """Text as it is: names from a cluster are not markup."""
    return Text("-" if value is None else str(value))


def gib(mib: int | None) -> str:
    """MiB for people, in GiB with one decimal."""
    return "?" if mib is None else f"{mib / 1024:.1f}"
