"""Where things are."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Position(msgspec.Struct, frozen=True):
    """A point on the earth, WGS 84, in degrees."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]
