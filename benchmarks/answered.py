"""The app with nobody to call: every call is answered at once with "a callback follows", as a party may.

What follows is said on the topics by `benchmarks.topics_only`. `faust -A benchmarks.answered worker`
"""

import msgspec

from streams.app import app, engine
from streams.calls.performer import Answer
from streams.engine import Again, Answered, Whom

__all__ = ["app"]

FOLLOWS = Answered(msgspec.json.encode(Answer(202, "")))


class Nobody:
    """Stands where the HTTP client is."""

    def whom(self, request: bytes) -> Whom:
        """One for all."""
        return Whom("nobody", "nobody")

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> Answered | Again:
        """An answer without a wire."""
        return FOLLOWS


engine.performer = Nobody()
