"""The small city that the simulators share: three quarters of Mumbai, their restaurants, menus, customers and orders.

    python -m simulators.city --pos-url http://127.0.0.1:5050 > restaurants.json

The restaurants, people and streets are made up. Prices are in paise (INR) and include tax.
"""

import argparse
from collections.abc import Mapping
from datetime import datetime
from random import Random
from typing import NamedTuple

import msgspec

from simulators.command import url
from simulators.streets import Leg, moved, offset
from topics.orders import Customer, Fee, Item, Modifier, Placed
from topics.places import Position
from topics.restaurants import Restaurant

CURRENCY = "INR"
PROVIDER = "tiffin-express"
STREET_MPS, AVENUE_MPS = 4.5, 7.0
"""A scooter in the city's traffic, metres a second."""
AVENUE_EVERY = 4
"""Of the streets in each direction, one in so many is an avenue."""
BLOCK_M = 120.0
"""From one street to the next."""
FEES = (Fee(name="Delivery", amount=35_00), Fee(name="Packaging", amount=10_00))
TIPS = (0, 0, 0, 20_00, 30_00, 50_00)


class Region(NamedTuple):
    """A quarter that has drivers of its own: a grid of streets from its south-western corner on."""

    id: str
    name: str
    corner: Position
    lanes: int
    """Streets that run north-south, counted eastwards."""
    roads: int
    """Streets that run east-west, counted northwards."""

    def crossing(self, lane: int, road: int) -> Position:
        """Where two streets meet, both counted from 0."""
        return moved(self.corner, road * BLOCK_M, lane * BLOCK_M)

    def somewhere(self, chance: Random) -> tuple[int, int]:
        """A lane and a road."""
        return chance.randrange(self.lanes), chance.randrange(self.roads)

    def way(self, here: Position, there: Position) -> tuple[Leg, Leg]:
        """How one drives: along the road that one is on, then along the lane that leads there."""
        corner = Position(here.lat, there.lon)
        _, road = self._streets(here)
        lane, _ = self._streets(there)
        return Leg(here, corner, _driving_mps(road)), Leg(corner, there, _driving_mps(lane))

    def a_block_from(self, here: Position) -> list[Position]:
        """The places within the region that are one block away; if there is none, this one."""
        places = [moved(here, *by) for by in ((BLOCK_M, 0), (-BLOCK_M, 0), (0, BLOCK_M), (0, -BLOCK_M))]
        return [place for place in places if self.holds(place)] or [here]

    def holds(self, position: Position) -> bool:
        """Whether it lies within the region."""
        lane, road = self._streets(position)
        return 0 <= lane < self.lanes and 0 <= road < self.roads

    def _streets(self, position: Position) -> tuple[int, int]:
        """The nearest lane and road."""
        north, east = offset(self.corner, position)
        return round(east / BLOCK_M), round(north / BLOCK_M)


def _driving_mps(street: int) -> float:
    return STREET_MPS if street % AVENUE_EVERY else AVENUE_MPS


class Product(NamedTuple):
    """A line of a menu. Each extra may be added once."""

    code: str
    """What the restaurant's point of sale calls it."""
    name: str
    price: int
    extras: tuple[Modifier, ...] = ()


class Kitchen(NamedTuple):
    """A restaurant: at a crossing of its region, with a menu, and the seconds it takes to prepare an order."""

    id: str
    name: str
    region: Region
    lane: int
    road: int
    preparation_s: int
    menu: tuple[Product, ...]
    weight: int = 2
    """How much is ordered there, compared with the others."""

    @property
    def position(self) -> Position:
        """Where it is."""
        return self.region.crossing(self.lane, self.road)

    def record(self, pos_url: str) -> Restaurant:
        """What is said of it on the topic; its point of sale is one of many served under `pos_url`."""
        return Restaurant(
            restaurant=self.id,
            name=self.name,
            region=self.region.id,
            position=self.position,
            pos_url=f"{pos_url}/restaurants/{self.id}",
            preparation_s=self.preparation_s,
        )


FORT = Region("mumbai-fort", "Fort", Position(18.925, 72.826), lanes=12, roads=22)
DADAR = Region("mumbai-dadar", "Dadar", Position(19.006, 72.836), lanes=18, roads=20)
BANDRA = Region("mumbai-bandra", "Bandra", Position(19.047, 72.822), lanes=14, roads=18)
REGIONS = (FORT, DADAR, BANDRA)

_CHEESE = Modifier(name="Extra cheese", pos_code="X-CHEESE", price=40_00)
_GHEE = Modifier(name="With ghee", pos_code="X-GHEE", price=15_00)
_SPICY = Modifier(name="Extra spicy", pos_code="X-SPICY", price=0)

KITCHENS: Mapping[str, Kitchen] = {
    kitchen.id: kitchen
    for kitchen in (
        Kitchen(
            "lakshmi-tiffin",
            "Lakshmi's Tiffin House",
            FORT,
            lane=2,
            road=16,
            preparation_s=480,
            weight=5,
            menu=(
                Product("LT-01", "Tiffin of the day, three tiers", 180_00, (_GHEE, _SPICY)),
                Product("LT-02", "Rajma rice box", 140_00, (_GHEE,)),
                Product("LT-03", "Puran poli, two", 90_00, (_GHEE,)),
                Product("LT-04", "Buttermilk", 40_00),
            ),
        ),
        Kitchen(
            "ballard-slice",
            "Ballard Slice",
            FORT,
            lane=9,
            road=12,
            preparation_s=720,
            menu=(
                Product("BS-01", "Pizza Margherita", 320_00, (_CHEESE,)),
                Product("BS-02", "Pizza Paneer Tikka", 390_00, (_CHEESE, _SPICY)),
                Product("BS-03", "Garlic bread", 150_00, (_CHEESE,)),
                Product("BS-04", "Fresh lime soda", 80_00),
            ),
        ),
        Kitchen(
            "harbour-sushi",
            "Harbour Sushi",
            FORT,
            lane=7,
            road=3,
            preparation_s=900,
            weight=1,
            menu=(
                Product("HS-01", "Maki, eight pieces", 420_00, (_SPICY,)),
                Product("HS-02", "Salmon nigiri, six pieces", 640_00),
                Product("HS-03", "Miso soup", 160_00),
            ),
        ),
        Kitchen(
            "matunga-dosa",
            "Matunga Dosa Corner",
            DADAR,
            lane=12,
            road=15,
            preparation_s=420,
            weight=4,
            menu=(
                Product("MD-01", "Masala dosa", 120_00, (_GHEE, _SPICY)),
                Product("MD-02", "Idli, four", 80_00, (_GHEE,)),
                Product("MD-03", "Medu vada, two", 75_00),
                Product("MD-04", "Filter coffee", 45_00),
            ),
        ),
        Kitchen(
            "seaface-burgers",
            "Seaface Burgers",
            DADAR,
            lane=2,
            road=8,
            preparation_s=600,
            menu=(
                Product("SB-01", "Chicken burger", 260_00, (_CHEESE, _SPICY)),
                Product("SB-02", "Potato burger", 190_00, (_CHEESE, _SPICY)),
                Product("SB-03", "Masala fries", 120_00, (_CHEESE,)),
                Product("SB-04", "Mango shake", 140_00),
            ),
        ),
        Kitchen(
            "hindmata-chaat",
            "Hindmata Chaat House",
            DADAR,
            lane=9,
            road=2,
            preparation_s=300,
            menu=(
                Product("HC-01", "Vada pav, two", 60_00, (_CHEESE, _SPICY)),
                Product("HC-02", "Pav bhaji", 150_00, (_CHEESE, _SPICY)),
                Product("HC-03", "Sev puri", 80_00, (_SPICY,)),
            ),
        ),
        Kitchen(
            "carter-kebabs",
            "Carter Road Kebabs",
            BANDRA,
            lane=2,
            road=13,
            preparation_s=660,
            weight=3,
            menu=(
                Product("CK-01", "Chicken tikka roll", 210_00, (_CHEESE, _SPICY)),
                Product("CK-02", "Paneer tikka roll", 190_00, (_CHEESE, _SPICY)),
                Product("CK-03", "Seekh kebab, four", 260_00, (_SPICY,)),
                Product("CK-04", "Butter naan", 45_00, (_GHEE,)),
            ),
        ),
        Kitchen(
            "hill-road-biryani",
            "Hill Road Biryani",
            BANDRA,
            lane=6,
            road=5,
            preparation_s=540,
            weight=4,
            menu=(
                Product("HB-01", "Chicken biryani", 280_00, (_GHEE, _SPICY)),
                Product("HB-02", "Vegetable biryani", 220_00, (_GHEE, _SPICY)),
                Product("HB-03", "Raita", 50_00),
                Product("HB-04", "Gulab jamun, two", 70_00),
            ),
        ),
        Kitchen(
            "pali-salads",
            "Pali Salads",
            BANDRA,
            lane=11,
            road=9,
            preparation_s=240,
            weight=1,
            menu=(
                Product("PS-01", "Chickpea bowl", 240_00, (_SPICY,)),
                Product("PS-02", "Millet and mango bowl", 290_00),
                Product("PS-03", "Watermelon juice", 110_00),
            ),
        ),
    )
}

_WEIGHTS = tuple(kitchen.weight for kitchen in KITCHENS.values())

_FIRST_NAMES = (
    "Aarav",
    "Asha",
    "Farhan",
    "Ishaan",
    "Kavya",
    "Meera",
    "Nikhil",
    "Priya",
    "Rohan",
    "Sana",
    "Tara",
    "Zoya",
)
_LAST_NAMES = ("Desai", "Fernandes", "Iyer", "Joshi", "Khan", "Kulkarni", "Mistry", "Patil", "Rao", "Shah")
_NOTES = ("", "", "", "", "Ring twice, please", "Leave it with the watchman", "Call when at the gate")


def order(seed: str, run: str, number: int, placed_at: datetime, deliver_at: datetime | None = None) -> Placed:
    """The order of that number, 1 the first: the same for the same seed; `run` only goes into its external id."""
    chance = Random(f"order/{seed}/{number}")
    kitchen = chance.choices(tuple(KITCHENS.values()), _WEIGHTS)[0]
    products = chance.sample(kitchen.menu, k=chance.randint(1, min(3, len(kitchen.menu))))
    items = tuple(_item(f"{line}", product, chance) for line, product in enumerate(products, 1))
    tip = chance.choice(TIPS)
    return Placed(
        at=placed_at,
        provider=PROVIDER,
        external_id=external_id(run, number),
        display_number=f"{number:03d}",
        restaurant=kitchen.id,
        items=items,
        fees=FEES,
        tip=tip,
        total=sum(map(_price, items)) + sum(fee.amount for fee in FEES) + tip,
        currency=CURRENCY,
        customer=_customer(kitchen.region, chance),
        deliver_at=deliver_at,
    )


def external_id(run: str, number: int) -> str:
    """What the provider calls its order of that number in a run."""
    return f"{run}-{number:06d}"


def driver_home(seed: str, driver: str, number: int) -> tuple[Region, Position]:
    """Where a driver, counted from 0, starts: the regions get the same number of them each."""
    region = REGIONS[number % len(REGIONS)]
    return region, region.crossing(*region.somewhere(Random(f"home/{seed}/{driver}")))


def _item(line: str, product: Product, chance: Random) -> Item:
    return Item(
        id=line,
        name=product.name,
        quantity=chance.choice((1, 1, 1, 2, 2, 3)),
        unit_price=product.price,
        pos_code=product.code,
        modifiers=tuple(extra for extra in product.extras if chance.random() < 0.3),
    )


def _price(item: Item) -> int:
    return item.quantity * (item.unit_price + sum(modifier.price for modifier in item.modifiers))


def _customer(region: Region, chance: Random) -> Customer:
    lane, road = region.somewhere(chance)
    return Customer(
        name=f"{chance.choice(_FIRST_NAMES)} {chance.choice(_LAST_NAMES)}",
        address=f"{chance.randint(1, 40)}, Lane {lane + 1} at Road {road + 1}, {region.name}, Mumbai",
        position=region.crossing(lane, road),
        phone=f"+91 22 5550 {chance.randrange(10_000):04d}",
        note=chance.choice(_NOTES),
    )


def main() -> None:
    """Print the restaurants as a JSON list, as the worker reads them."""
    parser = argparse.ArgumentParser(prog="python -m simulators.city", description="Print the city's restaurants.")
    parser.add_argument(
        "--pos-url",
        type=url,
        default="http://127.0.0.1:5050",
        metavar="URL",
        help="where the restaurants' points of sale are served (default: %(default)s)",
    )
    pos_url = parser.parse_args().pos_url
    records = [msgspec.to_builtins(kitchen.record(pos_url)) for kitchen in KITCHENS.values()]
    for record in records:
        del record["type"]
    print(msgspec.json.format(msgspec.json.encode(records), indent=2).decode())


if __name__ == "__main__":
    main()
