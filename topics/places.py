"""Positions on the earth."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Position(msgspec.Struct, frozen=True):
    """A point on the earth: latitude and longitude in degrees, WGS 84."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]

    @property
    def is_null(self) -> bool:
        """True at latitude 0 and longitude 0, which stands for a place that is not known: nobody lives there."""
        return self.lat == 0 and self.lon == 0


NULL_ADVICE = "latitude 0, longitude 0 is in the sea: give the real place"
