"""The catalogue of restaurants. Every worker holds all of it."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from processors.hours import is_open
from streams.services import Services
from streams.views.api_view import ApiView
from streams.web.operation import operation
from streams.web.problems import Problem
from streams.web.requests import parse_id, respond
from topics.identity import PartyId
from topics.orders import Currency
from topics.places import Position
from topics.restaurants import Hours, MenuItem, Restaurant


class RestaurantSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A restaurant. `open` is about now."""

    id: PartyId
    name: str
    region: PartyId
    open: bool


class ShownRestaurant(RestaurantSummary, frozen=True, kw_only=True):
    """A restaurant with its menu."""

    position: Position
    preparation_s: int
    time_zone: str
    hours: Hours | None
    currency: Currency | None
    menu: list[MenuItem]


class RestaurantList(msgspec.Struct, frozen=True):
    """Restaurants by id."""

    restaurants: list[RestaurantSummary]


class Restaurants(ApiView):
    """All restaurants."""

    @operation(
        "listRestaurants",
        {200: RestaurantList},
        query={"region": Annotated[str, Meta(description="Region of the restaurants.")]},
    )
    async def get(self, request: web.Request) -> web.Response:
        """List the restaurants by id, without pages; `?region=` selects one region.

        - 200: `{"restaurants": [...]}`, each with `id`, `name`, `region` and `open` (now).
        """
        region = request.query.get("region")
        found = (restaurant for restaurant in self.services.catalogue.all() if region in (None, restaurant.region))
        return respond(200, RestaurantList([_summary(self.services, restaurant) for restaurant in found]))


class RestaurantDetail(ApiView):
    """One restaurant."""

    @operation("getRestaurant", {200: ShownRestaurant})
    async def get(self, request: web.Request, restaurant: str) -> web.Response:
        """Return a restaurant with its position, preparation time, hours, currency and menu.

        - 200: the fields of the list, and those of the record on the topic `restaurants` without `pos_url`. Prices are
          in minor units of `currency`; `preparation_s` is in seconds. A menu item or modifier shows its default values
          too.
        - 404: there is no such restaurant.
        """
        found = self.services.catalogue.get(parse_id(restaurant, PartyId, "a restaurant"))
        if found is None:
            raise Problem(404, "unknown", f"there is no restaurant {restaurant} here")
        return respond(200, _detail(self.services, found))


def _summary(services: Services, restaurant: Restaurant) -> RestaurantSummary:
    return RestaurantSummary(
        id=restaurant.restaurant,
        name=restaurant.name,
        region=restaurant.region,
        open=is_open(restaurant, services.now_ms()),
    )


def _detail(services: Services, restaurant: Restaurant) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(_summary(services, restaurant)),
        "position": restaurant.position,
        "preparation_s": restaurant.preparation_s,
        "time_zone": restaurant.time_zone,
        "hours": restaurant.hours,
        "currency": restaurant.currency,
        "menu": [_item(item) for item in restaurant.menu],
    }


def _item(item: MenuItem) -> dict[str, Any]:
    """Return an item with the fields that the record omits because they have their default values."""
    modifiers = [msgspec.structs.asdict(modifier) for modifier in item.modifiers]
    return {**msgspec.structs.asdict(item), "modifiers": modifiers}
