"""The numbers that decisions depend on, given to every one of them."""

import msgspec


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """How long things take and may take.

    ``speed_up`` says how much faster than the real world the simulated one runs: it divides every wait, every
    preparation and every journey. 0 is a world without delays: nothing takes any time, and the waits are those of the
    real world, because a wait of no time would be over before anybody could answer.
    """

    charge_wait_s: float = 30
    refund_wait_s: float = 30
    acceptance_wait_s: float = 120
    preparation_grace_s: float = 600
    """How much longer than its estimate a preparation may take."""
    driver_wait_s: float = 300
    pickup_wait_s: float = 900
    delivery_wait_s: float = 3600

    courier_speed_m_s: float = 5.0
    """On the road, stops at the lights included."""
    detour: float = 1.3
    """How much longer the road is than the straight line."""
    handover_s: float = 0
    """From the courier's arrival at a door to the courier's leaving it."""
    eta_step_s: float = 5
    """A change of an arrival time by less is not worth telling."""

    dispatch_resolution: int = 9
    """H3 resolution of the cells: a waiting driver who is in another one has moved. At 9 an edge is 200 m."""
    asked_kept_s: float = 24 * 3600
    """How long dispatch remembers what it was asked, to absorb a repeat. Not divided by the speed-up."""

    retention_s: float = 30 * 24 * 3600
    """How long an order that has ended stays in the tables. Not divided by the speed-up."""
    history_s: float = 365 * 24 * 3600
    """How long the history topic keeps it after that. Not divided by the speed-up."""

    speed_up: float = 1.0

    def duration_ms(self, seconds: float) -> int:
        """How long something takes, in milliseconds of this world: 0 in a world without delays."""
        return round(seconds * 1000 / self.speed_up) if self.speed_up else 0

    def wait_ms(self, seconds: float) -> int:
        """How long something may take, in milliseconds of this world."""
        return round(seconds * 1000 / (self.speed_up or 1.0))
