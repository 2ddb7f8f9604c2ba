"""Page of the commands of ``dabbawala``, made from their click definitions."""

from collections.abc import Iterator

import click

from streams.cli.__main__ import NAME, program

WIDTH = 100
INTRODUCTION = """# Commands

`dabbawala COMMAND`, after `. .venv/bin/activate`; the same commands are part of `faust -A streams.app`. Each command
asks a worker, which answers for all of them: the worker of `DABBAWALA_URL`, else the first one that runs from
`DABBAWALA_DIR`.

| exit code | meaning |
|---|---|
| 0 | success; also an empty list, or nothing left to do |
| 1 | the thing asked for does not exist, or the check failed: a watched order was rejected, a partition is not open, \
a topic has a wrong setting |
| 2 | the command could not run: no worker, a refusal, a wrong file or option; one sentence on \
stderr gives the remedy |
| 130 | interrupted by Ctrl-C |
"""


def render() -> str:
    """Return the page of commands."""
    context = click.Context(program, info_name=NAME, **program.context_settings)
    return "\n".join([INTRODUCTION, *_commands(program, context)])


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, terminal_width=WIDTH, max_content_width=WIDTH)
        depth = "#" * (2 + inner.command_path.count(" ") - 1)
        yield f"{depth} {inner.command_path}\n\n```text\n{command.get_help(inner)}\n```\n"
        if isinstance(command, click.Group):
            yield from _commands(command, inner)
