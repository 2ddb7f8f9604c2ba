"""`python -m oracle`: reconcile what outside parties wrote down with what is committed on the topics."""

import sys
from typing import Any

import click

from oracle.command import judge_as_asked, judging_options
from oracle.log import CannotRead

NAME = "python -m oracle"
USAGE = 2
INTERRUPTED = 130


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kafka", required=True, metavar="HOST:PORT", help="Kafka, as HOST:PORT[,HOST:PORT].")
@click.option("--prefix", default="dabbawala", show_default=True, help="What the topics' names begin with.")
@click.option("--application", help="What the changelogs' names begin with.  [default: the prefix]")
@judging_options
def program(kafka: str, prefix: str, application: str | None, **asked: Any) -> int:
    """Judge an installation from outside: by its topics, and by the ledgers of those it deals with.

    \b
    Exit codes: 0  every promise that can be judged is kept
                1  one is not
                2  nobody can tell; one sentence says why
    """
    return judge_as_asked(kafka, prefix, application or prefix, **asked)


def main() -> int:
    """Do what the command line says; the exit code."""
    try:
        return int(program.main(prog_name=NAME, standalone_mode=False) or 0)
    except click.ClickException as wrong:
        click.echo(f"{wrong.format_message().rstrip('.')}; see `{NAME} --help`.", err=True)
    except CannotRead as why:
        click.echo(str(why), err=True)
    except click.Abort:
        return INTERRUPTED
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
