"""`dabbawala`, or `python -m streams.cli`: inspect and repair what runs."""

import sys
from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from streams.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED
from streams.cli.registry import COMMANDS, load

NAME = "dabbawala"
COMPLETE = f"_{NAME.upper()}_COMPLETE"
COLONS = 'COMP_WORDBREAKS="${COMP_WORDBREAKS//:/}"  # an order\'s id contains a colon'
"""bash ends a word at a colon by default."""


class Program(click.Group):
    """A group whose commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, those used most first."""
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return one command."""
        return load(name) if name in COMMANDS else super().get_command(ctx, name)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
def program() -> None:
    """Inspect and repair what Dabbawala runs.

    The commands use one worker, which answers for all workers: that of DABBAWALA_URL, else the first that runs in
    the .dabbawala directory here (DABBAWALA_DIR).

    \b
    Exit codes:    0  done; also an empty list, or nothing left to do
                   1  not found, or a check failed
                   2  the command failed; stderr says why, in one sentence
                 130  interrupted
    """


@program.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

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
    """Run a command line; return the exit code."""
    try:
        return int(program.main(arguments, prog_name=NAME, complete_var=COMPLETE, standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message(), err=True)
        return EXIT_FAILED
    except click.UsageError as wrong:
        where = wrong.ctx.command_path if wrong.ctx else NAME
        click.echo(f"{wrong.format_message().rstrip('.')}; see `{where} --help`.", err=True)
        return EXIT_FAILED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
