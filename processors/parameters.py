"""Parameters of decisions: durations, limits and the speed of the simulated world."""

import msgspec


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """Durations and limits, in seconds of the real world.

    ``speed_up`` is the factor by which the simulated world is faster than the real one: it divides every wait, every
    preparation and every travel time. 0 is a world without delays: durations are 0, and waits are those of the real
    world, because a wait of 0 would end before any answer could arrive.
    """

    charge_wait_s: float = 30
    refund_wait_s: float = 30
    acceptance_wait_s: float = 120
    preparation_grace_s: float = 600
    """Time that a preparation may take beyond its estimate."""
    driver_wait_s: float = 300
    pickup_wait_s: float = 900
    delivery_wait_s: float = 3600
    silence_s: float = 300
    """Time without an event after which a waiting driver is off duty; see ``silence_ms``."""
    min_silence_s: float = 60
    """Lower bound of that time in seconds of the real world: phones and networks gain no speed from the speed-up."""
    forget_driver_s: float = 30 * 24 * 3600
    """Time without an event after which a driver off duty is forgotten. Not divided by the speed-up."""

    courier_speed_m_s: float = 5.0
    """Average speed on the road, including stops."""
    road_factor: float = 1.3
    """Length of the road divided by the great-circle distance."""
    handover_s: float = 0
    """Time from a courier's arrival at a door to the departure."""
    eta_step_s: float = 5
    """Smallest change of an ETA that is published."""

    dispatch_resolution: int = 9
    """H3 resolution of the cells: a waiting driver has moved if the cell has changed. At 9 an edge is 200 m."""
    pickup_limit_m: float = 50_000
    """Largest distance from a driver to the restaurant; a driver farther away is never chosen."""
    request_memory_s: float = 24 * 3600
    """Time for which dispatch remembers a request, to absorb repeats. Not divided by the speed-up."""

    retention_s: float = 30 * 24 * 3600
    """Time for which an ended order stays in the tables. Not divided by the speed-up."""
    history_s: float = 365 * 24 * 3600
    """Time for which the history topic keeps a retired order. Not divided by the speed-up."""

    speed_up: float = 1.0

    def duration_ms(self, seconds: float) -> int:
        """Return a duration (how long something takes) in milliseconds of this world; 0 in a world without delays."""
        return round(seconds * 1000 / self.speed_up) if self.speed_up else 0

    def wait_ms(self, seconds: float) -> int:
        """Return a limit (how long something may take) in milliseconds of this world."""
        return round(seconds * 1000 / (self.speed_up or 1.0))

    @property
    def silence_ms(self) -> int:
        """Time without an event after which a waiting driver is off duty, in milliseconds of this world."""
        return max(self.wait_ms(self.silence_s), round(self.min_silence_s * 1000))
