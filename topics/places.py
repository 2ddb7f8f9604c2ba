"""Positions on the earth."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Position(msgspec.Struct, frozen=True):
    """A point on the earth: latitude and longitude in degrees, WGS 84."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]
