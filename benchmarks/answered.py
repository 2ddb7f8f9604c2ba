"""The app without destinations: each call gets the answer "a callback follows" at once, as parties may answer.

`benchmarks.topics_only` produces the callbacks as records. `faust -A benchmarks.answered worker`
"""

import msgspec

from exactly_once import Completed, DestinationKey, Retry
from streams.build import Surroundings, build
from streams.calls.http_performer import Answer, HttpPerformer
from streams.cli import faust_commands
from streams.settings import Settings

FOLLOWS = Completed(msgspec.json.encode(Answer(202, "")))


class InstantPerformer(HttpPerformer):
    """Answers without a connection."""

    def destination_of(self, request: bytes) -> DestinationKey:
        """Return one destination for all calls."""
        return DestinationKey("nobody", "nobody")

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> Completed | Retry:
        """Answer at once."""
        return FOLLOWS


app = build(Settings.from_environment(), surroundings=Surroundings(make_performer=InstantPerformer)).app
faust_commands.register()
