"""The command line: ``gpu-extender``."""

import sys

import click

from extender.cli.look import check, explain, inspect
from extender.cli.serve import serve
from extender.cli.simulate import simulate
from extender.core.errors import GpuExtenderError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gpu-extender")
def cli() -> None:
    """Share GPUs under the stock kube-scheduler.

    Exit status: 0; 1 for a negative answer; 2 for bad usage or input.
    """


for command in (serve, inspect, explain, simulate, check):
    cli.add_command(command)


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit status 2."""
    try:
        cli(standalone_mode=True)
    except GpuExtenderError as error:
        click.echo(f"gpu-extender: {error}", err=True)
        sys.exit(2)
