"""The plan of faults follows from the seed, and a long plan has every kind of fault."""

import pytest

from verification.chaos.plan import (
    BROKER,
    DRIVERS,
    INSIDE,
    KINDS,
    MAX_WORKERS,
    MIN_WORKERS,
    PAYMENT,
    POS,
    PROVIDER,
    UPDATES,
    Fault,
    number_of,
    plan,
)
from verification.chaos.proxy import Mode


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_always_makes_the_same_plan(seed: int) -> None:
    assert plan(seed, 2000, 3) == plan(seed, 2000, 3)
    assert plan(seed, 2000, 3) != plan(seed + 1, 2000, 3)


@pytest.mark.parametrize("seed", range(20))
def test_a_long_run_has_every_kind_of_fault(seed: int) -> None:
    faults = plan(seed, 2000, 3)
    assert len(faults) == 2000 // 40
    assert {f"{fault.kind} {fault.detail.partition(':')[0]}" for fault in faults} >= {
        *(f"freeze inside {place}" for place in INSIDE),
        *(f"line {mode.name}" for mode in list(Mode)[1:]),
        *("wipe tables", "wipe everything", "kill ", "freeze ", "add ", "remove "),
    }
    killed = {name for fault in faults if fault.kind == "kill" for name in fault.targets}
    assert killed >= {BROKER, PAYMENT, POS, DRIVERS, PROVIDER}
    assert [fault.moment for fault in faults] == sorted(fault.moment for fault in faults)
    assert all(0 < fault.moment < UPDATES * 2000 for fault in faults)


@pytest.mark.parametrize("seed", range(50))
def test_only_present_workers_are_struck(seed: int) -> None:
    present = {1, 2, 3}
    for fault in plan(seed, 4000, 3):
        struck = {number_of(name) for name in fault.targets if name.startswith("worker-") and ">" not in name}
        if fault.kind == "add":
            assert not struck & present
            present |= struck
            continue
        assert struck <= present, fault
        if fault.kind == "remove":
            present -= struck
        assert MIN_WORKERS <= len(present) <= MAX_WORKERS


def test_a_short_run_has_only_the_chosen_kinds() -> None:
    kinds = ["broker unreachable", "kill a worker"]
    faults = plan(1, 60, 3, kinds, seconds=0.1)
    assert sorted(fault.kind for fault in faults) == ["kill", "line"]
    assert next(fault for fault in faults if fault.kind == "line").lasts_s == 6.0


def test_a_fault_is_printed_in_one_line() -> None:
    assert str(Fault(7, "kill", ("worker-1", "worker-2"), 2.5)) == "kill worker-1, worker-2 for 2.5 s"
    assert str(Fault(7, "wipe", ("worker-1",), 0, "tables")) == "wipe worker-1 (tables)"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_chosen_alone(kind: str) -> None:
    assert len(plan(3, 60, 3, [kind])) == 1
