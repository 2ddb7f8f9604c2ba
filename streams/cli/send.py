"""`faust -A streams.app send`: Faust's own, which finds an agent by the name that `faust agents` shows."""

from typing import Any

import faust.cli.send

from streams.cli.command import fail
from streams.cli.errors import CommandError


class send(faust.cli.send.send):
    """Send a message to an agent or a topic."""

    def to_topic(self, entity: str) -> Any:
        """Return the agent of `@NAME`, else the topic. The app has its agents; no module holds them."""
        if not entity.startswith("@"):
            return super().to_topic(entity)
        name = entity.removeprefix("@")
        agents = self.app.agents
        known = next((each for each in (name, f"{self.app.conf.origin}.{name}") if each in agents), None)
        if known is None:
            names = ", ".join(f"@{each.removeprefix('streams.')}" for each in sorted(agents))
            fail(CommandError(f"There is no agent {entity}. The agents are: {names}."))
        return agents[known]
