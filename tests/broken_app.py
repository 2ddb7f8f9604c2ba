"""The app with a machine that breaks down on one event of some orders, when all that it does is done and not committed.

    stack.start_worker(app="tests.broken_app", BREAKS_ON="CallAnswered", BREAKS_FOR="my-shop:1001")

`BREAKS_ON` is the event, by the name of its class; `BREAKS_FOR` is in the id of the orders.
"""

import os
from typing import Any

from processors.workflow import Step
from streams import app as _wired
from streams import workflow
from streams.engine import Task

ON, FOR = os.environ["BREAKS_ON"], os.environ["BREAKS_FOR"]
app = _wired.app
_move = workflow._move


def _broken(task: Task, order: str, event: Any, *more: Any) -> Step:
    step = _move(task, order, event, *more)
    if type(event).__name__ == ON and FOR in order:
        raise ZeroDivisionError(f"a bug that {order} brings to light")
    return step


workflow._move = _broken  # type: ignore[assignment]
