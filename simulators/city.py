"""The small city that the simulators share: three quarters of Mumbai, their restaurants, menus, customers and orders.

    python -m simulators.city --pos-url http://127.0.0.1:5050 > catalogue.json

The restaurants, people and streets are made up. Prices are in paise (INR) and include tax.
"""

import argparse
from collections.abc import Mapping
from datetime import datetime
from random import Random
from typing import NamedTuple

import msgspec

from simulators.cli import url
from simulators.streets import Leg, moved, offset
from topics.orders import Customer, Fee, Item, Modifier, Placed
from topics.places import Position
from topics.restaurants import MenuItem, MenuModifier, Restaurant

CURRENCY = "INR"
TIME_ZONE = "Asia/Kolkata"
PROVIDER = "tiffin-express"
STREET_MPS, AVENUE_MPS = 4.5, 7.0
"""A scooter in the city's traffic, metres a second."""
AVENUE_EVERY = 4
"""One street in so many is an avenue, in each direction."""
BLOCK_M = 120.0
"""Metres from one street to the next."""
FEES = (Fee(name="Delivery", amount=35_00), Fee(name="Packaging", amount=10_00))
TIPS = (0, 0, 0, 20_00, 30_00, 50_00)


class Region(NamedTuple):
    """A quarter with its drivers: a grid of streets from its south-western corner on."""

    id: str
    name: str
    corner: Position
    lanes: int
    """Streets that run north-south, counted eastwards."""
    roads: int
    """Streets that run east-west, counted northwards."""

    def crossing(self, lane: int, road: int) -> Position:
        """Return the crossing of two streets, both counted from 0."""
        return moved(self.corner, road * BLOCK_M, lane * BLOCK_M)

    def somewhere(self, rng: Random) -> tuple[int, int]:
        """Draw a lane and a road."""
        return rng.randrange(self.lanes), rng.randrange(self.roads)

    def way(self, here: Position, there: Position) -> tuple[Leg, Leg]:
        """Return the way: along the road of the start, then along the lane of the destination."""
        corner = Position(here.lat, there.lon)
        _, road = self._streets(here)
        lane, _ = self._streets(there)
        return Leg(here, corner, _driving_mps(road)), Leg(corner, there, _driving_mps(lane))

    def a_block_from(self, here: Position) -> list[Position]:
        """Return the places of the region that are one block away; this one if there is none."""
        places = [moved(here, *by) for by in ((BLOCK_M, 0), (-BLOCK_M, 0), (0, BLOCK_M), (0, -BLOCK_M))]
        return [place for place in places if self.holds(place)] or [here]

    def holds(self, position: Position) -> bool:
        """Return whether a position lies within the region."""
        lane, road = self._streets(position)
        return 0 <= lane < self.lanes and 0 <= road < self.roads

    def _streets(self, position: Position) -> tuple[int, int]:
        """Return the nearest lane and road."""
        north, east = offset(self.corner, position)
        return round(east / BLOCK_M), round(north / BLOCK_M)


def _driving_mps(street: int) -> float:
    return STREET_MPS if street % AVENUE_EVERY else AVENUE_MPS


class Product(NamedTuple):
    """A line of a menu. Each extra may be added once."""

    code: str
    """Its code at the restaurant's point of sale."""
    name: str
    price: int
    extras: tuple[Modifier, ...] = ()

    def record(self) -> MenuItem:
        """Return the menu item of the restaurant's record."""
        extras = tuple(MenuModifier(pos_code=each.pos_code, name=each.name, price=each.price) for each in self.extras)
        return MenuItem(pos_code=self.code, name=self.name, unit_price=self.price, modifiers=extras)


class Kitchen(NamedTuple):
    """A restaurant: at a crossing of its region, with a menu, and the seconds it takes to prepare an order. It is
    always open."""

    id: str
    name: str
    region: Region
    lane: int
    road: int
    preparation_s: int
    menu: tuple[Product, ...]
    weight: int = 2
    """Its share of the orders, relative to the other restaurants."""

    @property
    def position(self) -> Position:
        """Its position."""
        return self.region.crossing(self.lane, self.road)

    def record(self, pos_url: str) -> Restaurant:
        """Return its record; its point of sale is one of many under ``pos_url``."""
        return Restaurant(
            restaurant=self.id,
            name=self.name,
            region=self.region.id,
            position=self.position,
            pos_url=f"{pos_url}/restaurants/{self.id}",
            preparation_s=self.preparation_s,
            time_zone=TIME_ZONE,
            currency=CURRENCY,
            menu=tuple(product.record() for product in self.menu),
        )


FORT = Region("mumbai-fort", "Fort", Position(18.925, 72.826), lanes=12, roads=22)
DADAR = Region("mumbai-dadar", "Dadar", Position(19.006, 72.836), lanes=18, roads=20)
BANDRA = Region("mumbai-bandra", "Bandra", Position(19.047, 72.822), lanes=14, roads=18)
REGIONS = (FORT, DADAR, BANDRA)

_CHEESE = Modifier(name="Extra cheese", pos_code="X-CHEESE", price=40_00)
_GHEE = Modifier(name="With ghee", pos_code="X-GHEE", price=15_00)
_SPICY = Modifier(name="Extra spicy", pos_code="X-SPICY", price=0)
_LARGE = Modifier(name="Large", pos_code="X-LARGE", price=60_00)
_NO_ONION = Modifier(name="No onion, no garlic", pos_code="X-JAIN", price=0)

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
                Product("LT-05", "Aloo gobi with three chapatis", 150_00, (_GHEE, _SPICY, _NO_ONION)),
                Product("LT-06", "Dal khichdi", 130_00, (_GHEE, _NO_ONION)),
                Product("LT-07", "Kothimbir vadi, six", 110_00, (_SPICY,)),
                Product("LT-08", "Shrikhand", 85_00),
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
                Product("BS-05", "Pizza Four Cheeses", 450_00, (_LARGE,)),
                Product("BS-06", "Pizza Garden", 360_00, (_CHEESE, _LARGE, _NO_ONION)),
                Product("BS-07", "Penne arrabbiata", 340_00, (_CHEESE, _SPICY)),
                Product("BS-08", "Tiramisu", 220_00),
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
                Product("HS-04", "Cucumber maki, eight pieces", 300_00, (_SPICY,)),
                Product("HS-05", "Prawn tempura", 580_00, (_SPICY,)),
                Product("HS-06", "Vegetable udon", 440_00, (_LARGE, _SPICY)),
                Product("HS-07", "Matcha mochi, three", 260_00),
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
                Product("MD-05", "Mysore masala dosa", 140_00, (_GHEE, _SPICY)),
                Product("MD-06", "Onion uttapam", 125_00, (_CHEESE, _SPICY)),
                Product("MD-07", "Rava dosa", 130_00, (_GHEE,)),
                Product("MD-08", "Pongal", 95_00, (_GHEE,)),
                Product("MD-09", "Kesari", 60_00),
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
                Product("SB-05", "Paneer burger", 230_00, (_CHEESE, _SPICY)),
                Product("SB-06", "Fish burger", 290_00, (_CHEESE, _LARGE)),
                Product("SB-07", "Onion rings", 130_00),
                Product("SB-08", "Cold coffee", 120_00, (_LARGE,)),
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
                Product("HC-04", "Pani puri, eight", 60_00, (_SPICY,)),
                Product("HC-05", "Ragda pattice", 95_00, (_SPICY, _NO_ONION)),
                Product("HC-06", "Dabeli, two", 70_00, (_CHEESE,)),
                Product("HC-07", "Misal pav", 120_00, (_SPICY,)),
                Product("HC-08", "Cutting chai", 20_00),
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
                Product("CK-05", "Mutton boti, six", 320_00, (_SPICY,)),
                Product("CK-06", "Green salad", 60_00),
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
                Product("HB-05", "Mutton biryani", 340_00, (_GHEE, _SPICY)),
                Product("HB-06", "Egg biryani", 240_00, (_GHEE, _SPICY)),
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
                Product("PS-04", "Beetroot and paneer salad", 260_00, (_NO_ONION,)),
                Product("PS-05", "Sprouts salad", 180_00, (_SPICY, _NO_ONION)),
                Product("PS-06", "Tender coconut", 90_00),
            ),
        ),
        Kitchen(
            "linking-road-sweets",
            "Linking Road Sweets",
            BANDRA,
            lane=8,
            road=15,
            preparation_s=180,
            weight=1,
            menu=(
                Product("LR-01", "Jalebi, a quarter kilo", 120_00),
                Product("LR-02", "Kaju katli, ten", 280_00),
                Product("LR-03", "Samosa, two", 50_00, (_SPICY,)),
                Product("LR-04", "Dhokla, six", 90_00, (_SPICY, _NO_ONION)),
                Product("LR-05", "Falooda", 140_00, (_LARGE,)),
                Product("LR-06", "Rasmalai, two", 110_00),
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
    """Return order number 1, 2, ... of a seed; ``run`` only goes into its external id."""
    rng = Random(f"order/{seed}/{number}")
    kitchen = rng.choices(tuple(KITCHENS.values()), _WEIGHTS)[0]
    products = rng.sample(kitchen.menu, k=rng.randint(1, min(3, len(kitchen.menu))))
    items = tuple(_item(f"{line}", product, rng) for line, product in enumerate(products, 1))
    tip = rng.choice(TIPS)
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
        customer=_customer(kitchen.region, rng),
        deliver_at=deliver_at,
    )


def external_id(run: str, number: int) -> str:
    """Return the provider's id of an order in a run."""
    return f"{run}-{number:06d}"


def driver_home(seed: str, driver: str, number: int) -> tuple[Region, Position]:
    """Return where a driver, counted from 0, starts: the drivers are spread evenly over the regions."""
    region = REGIONS[number % len(REGIONS)]
    return region, region.crossing(*region.somewhere(Random(f"home/{seed}/{driver}")))


def _item(line: str, product: Product, rng: Random) -> Item:
    return Item(
        id=line,
        name=product.name,
        quantity=rng.choice((1, 1, 1, 2, 2, 3)),
        unit_price=product.price,
        pos_code=product.code,
        modifiers=tuple(extra for extra in product.extras if rng.random() < 0.3),
    )


def _price(item: Item) -> int:
    return item.quantity * (item.unit_price + sum(modifier.price for modifier in item.modifiers))


def _customer(region: Region, rng: Random) -> Customer:
    lane, road = region.somewhere(rng)
    return Customer(
        name=f"{rng.choice(_FIRST_NAMES)} {rng.choice(_LAST_NAMES)}",
        address=f"{rng.randint(1, 40)}, Lane {lane + 1} at Road {road + 1}, {region.name}, Mumbai",
        position=region.crossing(lane, road),
        phone=f"+91 22 5550 {rng.randrange(10_000):04d}",
        note=rng.choice(_NOTES),
    )


def main() -> None:
    """Print the restaurants as a JSON list, as the worker reads them."""
    parser = argparse.ArgumentParser(prog="python -m simulators.city", description="Print the city's restaurants.")
    parser.add_argument(
        "--pos-url",
        type=url,
        default="http://127.0.0.1:5050",
        metavar="URL",
        help="address of the restaurants' points of sale (default: %(default)s)",
    )
    pos_url = parser.parse_args().pos_url
    records = [msgspec.to_builtins(kitchen.record(pos_url)) for kitchen in KITCHENS.values()]
    for record in records:
        del record["type"]
    print(msgspec.json.format(msgspec.json.encode(records), indent=2).decode())


if __name__ == "__main__":
    main()
