"""The ids that commands take: what they look like, and which there are, for the shell to complete."""

from collections.abc import Callable
from typing import Any

import click
import httpx
import msgspec
from click.shell_completion import CompletionItem

from streams.cli.asking import worker_url
from streams.cli.errors import CommandError
from topics.identity import OrderId, PartyId

SUGGESTIONS = 50
SUGGEST_WITHIN_S = 1.0


class Id(click.ParamType):
    """An id of some kind. `suggest` finds those that begin like what was typed so far."""

    def __init__(self, name: str, pattern: Any, looks_like: str, suggest: Callable[[str], list[str]]) -> None:
        self.name, self._pattern, self._looks_like, self._suggest = name, pattern, looks_like, suggest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id, if it can be one."""
        try:
            return str(msgspec.convert(value, self._pattern))
        except msgspec.ValidationError:
            raise CommandError(f"{value!r} cannot be the id of {self.name}: that is {self._looks_like}.") from None

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Those that a worker knows; none if it does not say."""
        try:
            return [CompletionItem(found) for found in self._suggest(incomplete)]
        except (CommandError, httpx.HTTPError, ValueError, KeyError):
            return []


def _listed(path: str, member: str, field: str) -> Callable[[str], list[str]]:
    """The ids in a list of the API, which is in the order of ids and may start anywhere."""

    def suggest(incomplete: str) -> list[str]:
        query = {"limit": str(SUGGESTIONS), "cursor": incomplete}
        answer = httpx.get(worker_url() + path, params=query, timeout=SUGGEST_WITHIN_S).raise_for_status()
        return [row[field] for row in answer.json()[member] if row[field].startswith(incomplete)]

    return suggest


ORDER = Id("an order", OrderId, "provider:external-id, as in my-shop:1001", _listed("/v1/orders", "orders", "id"))
DRIVER = Id(
    "a driver",
    PartyId,
    "up to 64 letters, digits, dots, dashes and underscores",
    _listed("/v1/drivers", "drivers", "driver"),
)
RESTAURANT = Id(
    "a restaurant",
    PartyId,
    "up to 64 letters, digits, dots, dashes and underscores",
    _listed("/v1/restaurants", "restaurants", "id"),
)
REGION = Id("a region", PartyId, "up to 64 letters, digits, dots, dashes and underscores", lambda _: [])
