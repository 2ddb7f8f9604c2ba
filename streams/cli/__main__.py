"""`dabbawala`, or `python -m streams.cli`: looking at what runs and setting right what does not."""

import sys
from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from streams.cli.errors import USAGE
from streams.cli.groups import COMMANDS, load

NAME = "dabbawala"
COMPLETE = f"_{NAME.upper()}_COMPLETE"
INTERRUPTED = 130
COLONS = 'COMP_WORDBREAKS="${COMP_WORDBREAKS//:/}"  # an order\'s id has one in it'
"""bash takes a colon for the end of a word, unless told not to."""


class Program(click.Group):
    """Its commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which somebody would look for them."""
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """One of them."""
        return load(name) if name in COMMANDS else super().get_command(ctx, name)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
def program() -> None:
    """Look at what Dabbawala does, and set right what went wrong.

    Every command asks a worker, which answers for all of them: the one named by DABBAWALA_URL, else the first that runs
    from the .dabbawala directory here (DABBAWALA_DIR).

    \b
    Exit codes: 0  done
                1  what was asked for is not there, or something is wrong with it
                2  the command could not do it; one sentence says what to do
    """


@program.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete these commands.

    \b
    bash   eval "$(dabbawala completion bash)"           in ~/.bashrc
    zsh    eval "$(dabbawala completion zsh)"            in ~/.zshrc, after compinit
    fish   dabbawala completion fish | source            in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    if shell == "bash":
        click.echo(COLONS)
    click.echo(kind(program, {}, NAME, COMPLETE).source())


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    try:
        return int(program.main(arguments, prog_name=NAME, complete_var=COMPLETE, standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message(), err=True)
        return USAGE
    except click.UsageError as wrong:
        where = wrong.ctx.command_path if wrong.ctx else NAME
        click.echo(f"{wrong.format_message().rstrip('.')}; see `{where} --help`.", err=True)
        return USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
