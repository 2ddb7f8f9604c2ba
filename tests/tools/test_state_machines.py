"""The page of state machines."""

from tools import state_machines
from tools.state_machines import render


def test_every_machine_is_drawn_and_listed() -> None:
    text = render()
    for _, path, table, _ in state_machines.MACHINES:
        assert f"(`{path}`)" in text
        assert all(f"| {row.event.__name__} |" in text for row in table)
    assert "    CREATED --> REJECTED: PaymentDeclined" in text
    assert '    state "SCHEDULED, asked" as ASKED' in text
    assert "    DELIVERED --> [*]" in text
    assert "| CREATED | PaymentCharged | otherwise | SCHEDULED, asked | send the ticket to the restaurant; " in text


def test_every_row_says_what_it_does_in_words() -> None:
    for _, _, table, _ in state_machines.MACHINES:
        for row in table:
            assert row.does.__doc__
            assert row.when is None or row.when.__doc__
