"""The stack that the tests of this folder share by default. Its simulators take no time; its waits are real."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import msgspec
import pytest

from tests.flow.client import Client
from tests.flow.hand_pos import HandPos, played_by_hand
from tests.support.stack import ROOT, TAKES_ANYTHING, Stack, installed
from topics.restaurants import Restaurant

KITCHENS = 100
"""Restaurants by hand in each stack whose tests take `kitchen`: more than one process uses in all its test files."""
INSTANT = ("--speed", "0")
RULES = {"payment": ("--decline", "ending:13"), "pos": ("--reject", "product:SOLD-OUT")}
"""Options that make the simulators decline or reject certain orders."""


@pytest.fixture(scope="session")
def hand_pos() -> Iterator[HandPos]:
    """The point of sale of the restaurants by hand."""
    with played_by_hand() as pos:
        yield pos


@pytest.fixture(autouse=True)
def _default_answers(hand_pos: HandPos) -> Iterator[None]:
    """Reset the restaurants' answers after each test: other stacks have restaurants of the same names."""
    yield
    hand_pos.answers.clear()


@pytest.fixture(scope="session")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a worker, a payment provider, restaurants and drivers."""
    directory, name = tmp_path_factory.mktemp("flow"), f"flow-{uuid.uuid4().hex[:8]}"
    with installed(kafka, name, directory, 1.0, hand_pos.kitchens(KITCHENS)) as stack:
        stack.start_payment(*INSTANT, *RULES["payment"])
        stack.start_pos(*INSTANT, *RULES["pos"])
        stack.start_worker()
        stack.start_drivers(12, *INSTANT)
        yield stack


@pytest.fixture(scope="session")
def _kitchens(hand_pos: HandPos) -> Iterator[Restaurant]:
    return iter(hand_pos.kitchens(KITCHENS))


@pytest.fixture
def new_kitchen(_kitchens: Iterator[Restaurant]) -> Callable[[], Restaurant]:
    """Return a function that returns a restaurant by hand that no other test uses, in a region without drivers."""
    return partial(next, _kitchens)


@pytest.fixture
def kitchen(new_kitchen: Callable[[], Restaurant]) -> Restaurant:
    """Return a restaurant by hand that no other test uses. Its region has no other restaurant and no driver."""
    return new_kitchen()


@pytest.fixture(scope="session")
def tiffin() -> Restaurant:
    """Return a restaurant of the simulated city, with drivers around it."""
    city = msgspec.json.decode((ROOT / "catalogue.json").read_bytes(), type=list[Restaurant])
    return next(restaurant for restaurant in city if restaurant.restaurant == TAKES_ANYTHING)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    """Return a client of the shared stack."""
    async with Client(stack) as client:
        yield client
