"""The command line: ``gpu-extender``."""

import sys
from importlib import import_module
from typing import Final, NoReturn

import click

from extender.core.errors import GpuExtenderError

#: Command → its module. Each is imported when it is called: the agent has 64 MiB, and a bind waits for its start.
COMMANDS: Final = {
    "serve": "serve",
    "inspect": "look",
    "explain": "look",
    "simulate": "simulate",
    "check": "look",
    "agent": "agent",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"{__name__}.{COMMANDS[cmd_name]}"), cmd_name)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gpu-extender")
def cli() -> None:
    """Share GPUs under the stock kube-scheduler.

    Exit status: 0; 1 for a negative answer; 2 for bad usage or input.
    """


def main() -> None:
    """Run the command line; an error is one line on stderr and exit status 2."""
    try:
        sys.exit(cli(standalone_mode=False))
    except GpuExtenderError as error:
        _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "gpu-extender"
        _fail(f"{error.format_message()} See: {where} --help")
    except click.Abort:
        sys.exit(130)


def _fail(sentence: str) -> NoReturn:
    click.echo(f"gpu-extender: {' '.join(sentence.split())}", err=True)
    sys.exit(2)
