"""Orders of a city from hour to hour, and the moment of each: many at noon, most in the evening."""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import msgspec

HOUR_S = 3600.0
DAY_H = 24

ORDERS_PER_HOUR: tuple[float, ...] = (
    *(3, 1, 1, 1, 1, 1),
    *(3, 8, 15, 12, 10, 25),
    *(65, 75, 45, 20, 15, 20),
    *(35, 70, 90, 70, 35, 10),
)
"""Orders per hour from midnight on: breakfast, a peak at lunch, and a longer and higher one at dinner."""


def read_curve(text: str) -> tuple[float, ...]:
    """Read the orders per hour from a file, a JSON list of 24 numbers from midnight on."""
    try:
        curve = msgspec.json.decode(Path(text).read_bytes(), type=tuple[float, ...])
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise argparse.ArgumentTypeError(f"{text} is not a JSON list of orders per hour: {error}") from None
    if len(curve) != DAY_H or min(curve) < 0 or not any(curve):
        raise argparse.ArgumentTypeError(f"{text} must hold {DAY_H} numbers from 0 up, not all 0: the orders per hour")
    return curve


def read_time(text: str) -> float:
    """Return the seconds from midnight to `HH:MM`."""
    if not (found := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time of day from 00:00 to 23:59")
    return int(found[1]) * HOUR_S + int(found[2]) * 60


def clock(second: float) -> str:
    """Return `HH:MM` of so many seconds since midnight."""
    return f"{int(second // HOUR_S):02d}:{int(second % HOUR_S // 60):02d}"


def arrivals(curve: Sequence[float], start_s: float, seed: str) -> Iterator[float]:
    """Yield the moments of orders, in seconds since midnight, from ``start_s`` to the end of the day.

    A Poisson process whose rate follows the curve: the expected number of orders between two orders is exponentially
    distributed. A seed always gives the same moments.
    """
    rng, second = Random(f"day/{seed}"), start_s
    while (found := _after(curve, second, rng.expovariate(1))) is not None:
        second = found
        yield second


def _after(curve: Sequence[float], second: float, expected: float) -> float | None:
    """Return the second by which so many orders are expected from this one on; None if the day ends before."""
    while (hour := int(second // HOUR_S)) < DAY_H:
        ends = (hour + 1) * HOUR_S
        rest = curve[hour] * (ends - second) / HOUR_S
        if expected < rest:
            return second + expected / curve[hour] * HOUR_S
        expected, second = expected - rest, ends
    return None
