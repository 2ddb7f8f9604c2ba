"""The commands of `dabbawala`. Each is a module, imported when the command runs."""

from importlib import import_module

import click

COMMANDS = {
    "orders": "streams.cli.orders:orders",
    "trace": "streams.cli.trace:trace",
    "workflows": "streams.cli.workflows:workflows",
    "erase": "streams.cli.erase:erase",
    "drivers": "streams.cli.drivers:drivers",
    "regions": "streams.cli.regions:regions",
    "timers": "streams.cli.timers:timers",
    "calls": "streams.cli.calls:calls",
    "parties": "streams.cli.parties:parties",
    "check-party": "streams.cli.check_party:check_party",
    "tasks": "streams.cli.tasks:tasks",
    "kv": "streams.cli.kv:kv",
    "catalogue": "streams.cli.catalogue:catalogue",
    "dead-letters": "streams.cli.dead_letters:dead_letters",
    "audit": "streams.cli.audit:audit",
    "reconcile": "streams.cli.reconcile:reconcile",
    "keys": "streams.cli.keys:keys",
    "sql": "streams.cli.sql:sql",
    "topics": "streams.cli.topics:topics",
    "leave": "streams.cli.leave:leave",
}
"""Name -> module:command. None of these modules imports Faust at its top: commands start at once."""
NAMES = tuple(COMMANDS)


def load(name: str) -> click.Command:
    """Return the command of a name."""
    module, _, attribute = COMMANDS[name].partition(":")
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command
