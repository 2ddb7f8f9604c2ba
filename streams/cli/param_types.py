"""The ids that commands take: their patterns, and the ids that exist, for shell completion."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from streams.cli.client import UNREACHABLE, open_client, worker_url
from streams.cli.errors import CommandError
from topics.identity import OrderId, PartyId

MAX_SUGGESTIONS = 50
SUGGEST_TIMEOUT_S = 1.0
MAX_AGE_DIGITS = 6
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
"""Unit of an age -> seconds."""


class Age(click.ParamType):
    """A duration such as 90s, 30m, 2h or 7d."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the duration as a `timedelta`."""
        if isinstance(value, timedelta):
            return value
        number, unit = str(value)[:-1], str(value)[-1:]
        if not number.isascii() or not number.isdecimal() or len(number) > MAX_AGE_DIGITS or unit not in UNITS_S:
            raise CommandError(f"{value!r} is not an age: use a number and s, m, h or d, such as 2h.")
        return timedelta(seconds=int(number) * UNITS_S[unit])


class Ago(Age):
    """A time in the past, as an age."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the time as a `datetime`."""
        return value if isinstance(value, datetime) else datetime.now(UTC) - super().convert(value, param, ctx)


class Id(click.ParamType):
    """An id of some kind. `suggest` finds the ids that begin with the letters typed so far."""

    def __init__(self, name: str, pattern: Any, form: str, suggest: Callable[[str], list[str]]) -> None:
        self.name = name
        self._pattern = pattern
        self._form = form
        self._suggest = suggest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id; `CommandError` if it does not match the pattern."""
        try:
            return str(msgspec.convert(value, self._pattern))
        except msgspec.ValidationError:
            raise CommandError(f"{value!r} is not the id of {self.name}: it must be {self._form}.") from None

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the ids that a worker knows; none if no worker answers."""
        try:
            return [CompletionItem(found) for found in self._suggest(incomplete)]
        except (CommandError, *UNREACHABLE, ValueError, KeyError):
            return []


def _listed(path: str, member: str, field: str) -> Callable[[str], list[str]]:
    """Search a list of the API, which is in the order of ids and may start anywhere."""

    def suggest(incomplete: str) -> list[str]:
        query = {"limit": str(MAX_SUGGESTIONS), "cursor": incomplete}
        with open_client(address := worker_url() + path, SUGGEST_TIMEOUT_S) as client:
            answer = client.get(address, params=query).raise_for_status()
        return [row[field] for row in answer.json()[member] if row[field].startswith(incomplete)]

    return suggest


ORDER = Id("an order", OrderId, "provider:external-id, such as my-shop:1001", _listed("/v1/orders", "orders", "id"))
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
AGE = Age()
AGO = Ago()
REGION = Id("a region", PartyId, "up to 64 letters, digits, dots, dashes and underscores", lambda _: [])
