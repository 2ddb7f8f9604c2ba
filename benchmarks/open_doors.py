"""The app without a check of keys, to measure what the check costs. `faust -A benchmarks.open_doors worker`"""

from collections.abc import Mapping

from aiohttp import web

from streams.access.keys import Identity, Role
from streams.access.rules import Rule
from streams.build import Surroundings, build
from streams.cli import faust_commands
from streams.settings import Settings
from streams.web.doorkeeper import SENDER, Doorkeeper

ANYBODY = Identity("anybody", Role.OPERATOR)


class OpenDoorkeeper(Doorkeeper):
    """A doorkeeper that admits everybody."""

    async def admit(self, request: web.Request, rule: Rule, path: Mapping[str, str]) -> None:
        """Note an operator as the sender."""
        request[SENDER] = ANYBODY


app = build(Settings.from_environment(), surroundings=Surroundings(make_doorkeeper=OpenDoorkeeper)).app
faust_commands.register()
