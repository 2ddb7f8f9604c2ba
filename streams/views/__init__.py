"""What is served over HTTP, one module a party. Importing one registers its routes with the app."""

from streams.views import (
    calls,
    dead_letters,
    drivers,
    feed,
    health,
    operations,
    orders,
    payments,
    pos,
    restaurants,
    tables,
)

__all__ = [
    "calls",
    "dead_letters",
    "drivers",
    "feed",
    "health",
    "operations",
    "orders",
    "payments",
    "pos",
    "restaurants",
    "tables",
]
