"""`python -m oracle`: compare the committed records of the topics with the ledgers of the outside parties."""

import sys
from typing import Any

import click

from oracle.cli import judge_as_asked, judging_options
from oracle.log import CannotRead
from topics.text import plain_lines

NAME = "python -m oracle"
USAGE = 2
INTERRUPTED = 130


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kafka", required=True, metavar="HOST:PORT", help="Kafka, as HOST:PORT[,HOST:PORT].")
@click.option("--prefix", default="dabbawala", show_default=True, help="Prefix of the topics' names.")
@click.option("--application", help="Prefix of the changelogs' names.  [default: the prefix]")
@judging_options
def program(kafka: str, prefix: str, application: str | None, **asked: Any) -> int:
    """Judge an installation from outside, by its topics and by the ledgers of the outside parties.

    \b
    Exit codes: 0  every promise that can be judged is kept
                1  a promise is broken
                2  no verdict; one sentence gives the reason
    """
    return judge_as_asked(kafka, prefix, application or prefix, **asked)


def main() -> int:
    """Run the command line, and return the exit code."""
    try:
        return int(program.main(prog_name=NAME, standalone_mode=False) or 0)
    except click.ClickException as error:
        click.echo(f"{error.format_message().rstrip('.')}; see `{NAME} --help`.", err=True)
    except CannotRead as error:
        click.echo(plain_lines(str(error)), err=True)
    except click.Abort:
        return INTERRUPTED
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
