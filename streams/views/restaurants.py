"""Which restaurants there are, and what they cook. Every worker has all of them."""

import time
from typing import Any

import msgspec
from aiohttp import web

from processors.hours import is_open
from streams.app import app, catalogue
from streams.problems import Problem
from streams.views.ask import ApiView, named, respond
from topics.identity import PartyId
from topics.restaurants import MenuItem, Restaurant


@app.page("/v1/restaurants")
class Restaurants(ApiView):
    """Which there are."""

    async def get(self, request: web.Request) -> web.Response:
        """By id; `?region=` narrows it down. `open` is as of now."""
        region = request.query.get("region")
        found = (restaurant for restaurant in catalogue.all() if region in (None, restaurant.region))
        return respond(200, {"restaurants": [_summary(restaurant) for restaurant in found]})


@app.page("/v1/restaurants/{restaurant}")
class OneRestaurant(ApiView):
    """All there is to know of one."""

    async def get(self, request: web.Request, restaurant: str) -> web.Response:
        """With its hours and its menu."""
        found = catalogue.get(named(restaurant, PartyId, "a restaurant"))
        if found is None:
            raise Problem(404, "unknown", f"there is no restaurant {restaurant} here")
        return respond(200, _whole(found))


def _summary(restaurant: Restaurant) -> dict[str, Any]:
    return {
        "id": restaurant.restaurant,
        "name": restaurant.name,
        "region": restaurant.region,
        "open": is_open(restaurant, time.time_ns() // 1_000_000),
    }


def _whole(restaurant: Restaurant) -> dict[str, Any]:
    return {
        **_summary(restaurant),
        "position": restaurant.position,
        "pos_url": restaurant.pos_url,
        "preparation_s": restaurant.preparation_s,
        "time_zone": restaurant.time_zone,
        "hours": restaurant.hours,
        "currency": restaurant.currency,
        "menu": [_item(item) for item in restaurant.menu],
    }


def _item(item: MenuItem) -> dict[str, Any]:
    """With what is left out in the record where it is as usual."""
    modifiers = [msgspec.structs.asdict(modifier) for modifier in item.modifiers]
    return {**msgspec.structs.asdict(item), "modifiers": modifiers}
