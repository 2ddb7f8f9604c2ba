"""An intruder: it asks for everything of an order with keys of parties that own nothing, and notes the answers.

intrusions.jsonl   {at, order, who, method, path, allowed, status, shown}; `allowed` is false if only a refusal is right
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import httpx

from simulators.ledger import now
from streams.access.keys import Role
from streams.access.rules import PAYMENTS, POS, RULES, callback_subject
from streams.access.tokens import Tokens
from tests.support.keys import KEYS, SECRET, STRANGERS
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.stack import TAKES_ANYTHING

SILENT = frozenset({"/livez", "/readyz", "/v1/events"})
"""Paths that the intruder leaves out: the probes are public, and the feed of all orders never ends."""
DOCUMENTS = ("/docs/", "/docs/events", "/openapi.json", "/asyncapi.json", "/schemas/{record}.json")
"""Routes with the documents of the interfaces, for every key."""
OPEN: dict[str, frozenset[Role]] = {
    **dict.fromkeys(DOCUMENTS, frozenset(Role)),
    "/v1/restaurants": frozenset(Role),
    "/v1/restaurants/{restaurant}": frozenset(Role),
    "/v1/tasks": frozenset({Role.MONITOR}),
    "/metrics": frozenset({Role.MONITOR}),
    "/v1/orders": frozenset({Role.PROVIDER}),
}
"""Routes that answer parties that own nothing: lists have nothing in them then, and an order of nonsense is refused."""
EVENT: dict[str, object] = {"type": "Charged", "charge_id": "ch_1", "amount": 1, "currency": "INR"}
TIMEOUT_S = 10.0
PAUSE_S = 5.0
"""Pause between two victims."""
RECENT = 30
"""Newest orders, of which one is the next victim."""


class Victim(NamedTuple):
    """The things that the intruder asks for."""

    order: str
    restaurant: str
    driver: str
    provider: str = PAYMENTS
    words: tuple[str, ...] = ()
    """Words of the customer, which nobody may see who does not ask for personal data."""


class Attempt(NamedTuple):
    """A request of the intruder. ``allowed``: an answer other than a refusal is right, without ``hidden`` in it."""

    who: str
    method: str
    path: str
    headers: dict[str, str]
    allowed: bool = False
    hidden: Sequence[str] = ()


class Intruder:
    """Asks for the things of victims, and notes the answers."""

    def __init__(self, ledger: Path) -> None:
        self.attempts = 0
        self._ledger = ledger

    async def ask(self, url: str, victim: Victim) -> None:
        """Make every attempt on a victim at the worker with this URL."""
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, verify=NO_CERTIFICATES) as http:
            for attempt in attempts(victim):
                body = {**EVENT, "order": victim.order, "delivery": victim.order}
                status, text = await _answer(http, attempt, body)
                shown = next((word for word in attempt.hidden if word in text), "")
                self._note(victim.order, attempt, status, shown)

    async def run(self, urls: Callable[[], Sequence[str]], orders: Callable[[], Sequence[str]], seed: int) -> None:
        """Ask for a recent order at a random worker now and then, until cancelled."""
        chance = Random(f"intruder/{seed}")
        while True:
            await asyncio.sleep(PAUSE_S)
            if (known := orders()[-RECENT:]) and (workers := urls()):
                await self.ask(chance.choice(workers), Victim(chance.choice(known), TAKES_ANYTHING, "driver-1"))

    def _note(self, order: str, attempt: Attempt, status: int, shown: str) -> None:
        entry = {
            "at": now().isoformat(),
            "order": order,
            "who": attempt.who,
            "method": attempt.method,
            "path": attempt.path,
            "allowed": attempt.allowed,
            "status": status,
            "shown": shown,
        }
        with self._ledger.open("a") as ledger:
            ledger.write(json.dumps(entry) + "\n")
        self.attempts += 1


def attempts(victim: Victim) -> Iterator[Attempt]:
    """Yield the requests that an intruder may think of: each route with each role's key, and with no key.

    The readings of an operator follow.
    """
    for route, method in _routes():
        if "{capability}" in route:
            for capability in _capabilities(victim):
                yield Attempt("a made-up capability", method, _filled(route, victim, capability), {})
            continue
        path = _filled(route, victim)
        yield Attempt("no key", method, path, {})
        yield Attempt("a forged token", method, path, {"Dabbawala-Forwarded": f"v1,0,operator,*,{victim.order},x"})
        for role, key in STRANGERS.items():
            allowed = role in OPEN.get(route, ())
            yield Attempt(f"the key of another {role}", method, path, _bearer(key), allowed, (victim.order,))
    yield from _readings(victim)


def _readings(victim: Victim) -> Iterator[Attempt]:
    """Yield the readings of an operator who does not ask to see personal data."""
    for route, rules in RULES.items():
        if "GET" in rules and route not in SILENT and not route.endswith("/events"):
            yield Attempt("all rights", "GET", _filled(route, victim), _bearer(KEYS[Role.OPERATOR]), True, victim.words)


def _routes() -> Iterator[tuple[str, str]]:
    return ((route, method) for route, rules in RULES.items() if route not in SILENT for method in rules)


def _capabilities(victim: Victim) -> Iterator[str]:
    """Yield what an intruder has instead of the victim's capability: nonsense, and those of another order."""
    tokens = Tokens(lambda: SECRET.encode())
    yield "A" * 43
    for kind, party in ((PAYMENTS, victim.provider), (POS, victim.restaurant)):
        yield tokens.capability(callback_subject(kind, party, f"{victim.order}1"))


def _filled(route: str, victim: Victim, capability: str = "") -> str:
    """Return a path with the victim's things in the place of the route's variables."""
    values = {
        **victim._asdict(),
        "capability": capability,
        "event": "rejected",
        "purpose": "charge",
        "command": "abandon",
        "partition": "0",
        "offset": "0",
        "name": "bodies",
        "key": victim.order,
        "record": "orders.Placed",
        "region": "mumbai-fort",
    }
    return re.sub(r"\{(\w+)[^}]*\}", lambda variable: str(values[variable[1]]), route)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def _answer(http: httpx.AsyncClient, attempt: Attempt, body: dict[str, Any]) -> tuple[int, str]:
    """Return status and text of an answer; 0 and no text without one."""
    try:
        answer = await http.request(
            attempt.method, attempt.path, headers=attempt.headers, json=body if attempt.method == "POST" else None
        )
    except httpx.HTTPError:
        return 0, ""
    return answer.status_code, answer.text
