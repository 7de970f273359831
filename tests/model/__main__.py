"""``python -m tests.model``: every world, and what the checker says about it; ``--deep`` with more mishaps at once."""

import sys
import time
from dataclasses import replace
from typing import Final

import click

from tests.model.cluster import Cluster
from tests.model.config import Config
from tests.model.explorer import explore
from tests.model.worlds import DEEP, WORLDS

MOST: Final = 1_000_000


@click.command()
@click.option("--deep", is_flag=True, help="One more mishap in each world, and larger worlds: an hour or more.")
@click.option("--limit", default=MOST, show_default=True, help="States of one world to look at; about 1 KiB each.")
@click.option("--world", multiple=True, help="Only these worlds.")
def main(*, deep: bool, limit: int, world: tuple[str, ...]) -> None:
    """Explore the model of the bind protocol."""
    failed = False
    for name, config in _worlds(deep=deep).items():
        if world and name not in world:
            continue
        began = time.monotonic()
        found = explore(Cluster(config), limit, progress=True)
        failed |= found.violation is not None
        click.echo(f"{name}, {config.mishaps} mishaps: {found} ({time.monotonic() - began:.0f} s)")
    sys.exit(failed)


def _worlds(*, deep: bool) -> dict[str, Config]:
    if not deep:
        return dict(WORLDS)
    return {name: replace(config, mishaps=config.mishaps + 1) for name, config in WORLDS.items()} | DEEP


if __name__ == "__main__":
    main()
