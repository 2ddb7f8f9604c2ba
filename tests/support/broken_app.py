"""The app with a bug: one event of some orders raises, after the decision and before the commit.

    stack.start_worker(app="tests.support.broken_app", BREAKS_ON="CallAnswered", BREAKS_FOR="my-shop:1001")

`BREAKS_ON` is the name of the event's class; `BREAKS_FOR` is part of the orders' ids.
"""

import os
from typing import Any

from exactly_once import Task
from processors.workflow import Step
from streams.build import Surroundings, build
from streams.cli import faust_commands
from streams.settings import Settings
from streams.worker.order_workflow import OrderWorkflow
from topics.restaurants import Restaurant

ON, FOR = os.environ["BREAKS_ON"], os.environ["BREAKS_FOR"]


class BrokenWorkflow(OrderWorkflow):
    """The workflow that raises on the event, when all its effects are in the transaction."""

    def apply_and_store(
        self,
        task: Task,
        order: str,
        event: Any,
        restaurant: Restaurant | None = None,
        recorded_ms: int | None = None,
    ) -> Step:
        """Decide, then raise."""
        step = super().apply_and_store(task, order, event, restaurant, recorded_ms)
        if type(event).__name__ == ON and FOR in order:
            raise ZeroDivisionError(f"a bug that {order} brings to light")
        return step


app = build(Settings.from_environment(), surroundings=Surroundings(make_workflow=BrokenWorkflow)).app
faust_commands.register()
