"""What is checked at the door."""

import pytest

from processors.intake import Problem, check
from tests.processors.cases import NOW, RESTAURANT, later, placed
from topics.orders import Fee


def test_an_order_that_adds_up_passes() -> None:
    assert check(placed(), RESTAURANT, NOW) == []


@pytest.mark.parametrize("total", [629, 631, 0])
def test_a_wrong_total_is_refused_line_by_line(total: int) -> None:
    assert check(placed(total=total), RESTAURANT, NOW) == [
        Problem("/total", f"the total is {total}, but /items/0 2 x 280 + /fees/0 40 + /tip 20 + /tax 10 = 630")
    ]


def test_every_part_of_the_sum_counts() -> None:
    fees = (Fee(name="delivery", amount=40), Fee(name="bag", amount=5))
    assert check(placed(fees=fees, tip=0, tax=0, total=605), RESTAURANT, NOW) == []


def test_an_unknown_restaurant_is_refused() -> None:
    assert check(placed(), None, NOW) == [Problem("/restaurant", "there is no restaurant 'lakshmi'")]


@pytest.mark.parametrize(("seconds", "problems"), [(3600, 0), (0, 0), (-3600, 0), (-3601, 1)])
def test_a_wish_more_than_an_hour_before_the_order_is_refused(seconds: int, problems: int) -> None:
    assert len(check(placed(deliver_at=later(seconds)), RESTAURANT, NOW)) == problems


def test_everything_wrong_is_said_at_once() -> None:
    wrong = placed(external_id=None, total=1, deliver_at=later(-9999))
    pointers = [problem.pointer for problem in check(wrong, None, NOW)]
    assert pointers == ["/external_id", "/restaurant", "/total", "/deliver_at"]
