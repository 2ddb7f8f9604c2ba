"""Agent of the topic `drivers`: silent drivers, with their rows and timers."""

from streams.agents import drivers
from streams.services import Services
from tests.processors.cases import DRIVER, REGION, STREET, P
from tests.streams.fake_task import FakeTask
from tests.support.services import unconnected_services
from topics.drivers import SetAvailable, SetUnavailable

TIMER = f"{DRIVER}/silence"


def fire(services: Services, task: FakeTask) -> None:
    """Advance the time to the driver's timer and fire it."""
    task.now_ms = task.timers.pop(TIMER.encode())
    drivers.timer_due(services, task.as_task(), TIMER)


def begin_shift(services: Services, task: FakeTask, driver: str) -> int:
    """Make a driver available, and return the number of the shift."""
    event = SetAvailable(id=f"{driver}/{task.now_ms}", driver=driver, region=REGION, position=STREET)
    state = drivers.apply_event(services, task.as_task(), driver, event).state
    assert state is not None
    return state.shift


def test_forgotten_driver_leaves_the_highest_shift_alone() -> None:
    services, task = unconnected_services(), FakeTask()
    for shift in (1, 2):
        assert begin_shift(services, task, DRIVER) == shift
        drivers.apply_event(services, task.as_task(), DRIVER, SetUnavailable(id=f"off/{shift}", driver=DRIVER))
        task.now_ms += 1
    assert begin_shift(services, task, "ravi") == 1
    del task.timers[b"ravi/silence"]
    began_ms = task.now_ms
    while task.timers:
        fire(services, task)
    assert task.now_ms - began_ms >= P.forget_driver_s * 1000 - 1
    assert [key for table, key in task.rows if table == services.tables.drivers.name] == [b"ravi"]

    drivers.timer_due(services, task.as_task(), TIMER)  # as if an operator replayed it
    assert not task.timers
    assert begin_shift(services, task, DRIVER) == 3
