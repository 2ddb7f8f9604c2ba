"""One stack for all of these tests that need nothing special: its simulators take no time, its waits are real ones."""

import uuid
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from tests.flow.client import Client
from tests.flow.hand_pos import HandPos, played_by_hand
from tests.stack import ROOT, TAKES_ANYTHING, Stack, installed
from topics.restaurants import Restaurant

KITCHENS = 60
"""Restaurants by hand: one a test that asks for one."""
INSTANT = ("--speed", "0")
RULES = {"payment": ("--decline", "ending:13"), "pos": ("--reject", "product:SOLD-OUT")}
"""What the simulators say no to."""


@pytest.fixture(scope="session")
def hand_pos() -> Iterator[HandPos]:
    """The point of sale of the restaurants by hand."""
    with played_by_hand() as pos:
        yield pos


@pytest.fixture(autouse=True)
def _answers_of_its_own(hand_pos: HandPos) -> Iterator[None]:
    """What a restaurant was to say in one test it does not say in the next: other stacks have some of its name."""
    yield
    hand_pos.answers.clear()


@pytest.fixture(scope="session")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A worker, a payment provider, restaurants and drivers."""
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
def kitchen(_kitchens: Iterator[Restaurant]) -> Restaurant:
    """A restaurant by hand that no other test uses, in a region of its own without any driver."""
    return next(_kitchens)


@pytest.fixture(scope="session")
def tiffin() -> Restaurant:
    """A restaurant of the simulated city, which cooks and has drivers."""
    city = msgspec.json.decode((ROOT / "catalogue.json").read_bytes(), type=list[Restaurant])
    return next(restaurant for restaurant in city if restaurant.restaurant == TAKES_ANYTHING)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    """A party outside."""
    async with Client(stack) as client:
        yield client
