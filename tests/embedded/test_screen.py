"""The demo's screen knows every status."""

from streams.embedded.screen import STYLES
from topics.order_updates import OrderStatus


def test_every_status_has_its_colour() -> None:
    assert set(STYLES) == set(OrderStatus)
