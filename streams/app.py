"""The Faust app of `faust -A streams.app`. `streams.build` makes it."""

from streams.cli import faust_commands
from streams.cli.kafka import services

app = services().app
faust_commands.register()
