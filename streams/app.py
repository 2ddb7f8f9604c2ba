"""The Faust app of `faust -A streams.app`. `streams.build` makes it."""

from streams.build import build
from streams.cli import faust_commands
from streams.cli.kafka import read_settings

app = build(read_settings()).app
faust_commands.register()
