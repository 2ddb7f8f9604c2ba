"""Failpoints: places in the code where a fault can be caused on purpose, to prove that nothing is lost there.

    EngineSettings(failpoints="name:action:every[,name:action:every...]")

At every ``every``-th passage of ``name`` the worker does ``action``. Without failpoints a passage costs one call of an
empty function. The names, in the order in which a task passes them:

    opening      before the previous owner is fenced
    restoring    after each batch of changelog records that was restored
    before_call  before an outgoing call is made
    after_call   when it has been answered and the answer is not applied yet
    produced     outputs, rows and positions are in the log, not committed
    end_sent     EndTxn has left, its answer has not come
    committed    the transaction is committed, RocksDB does not know yet
    stored       RocksDB knows, calls and views do not yet
"""

import logging
import os
import signal
from collections import Counter
from collections.abc import Callable

NAMES = (
    "opening",
    "restoring",
    "before_call",
    "after_call",
    "produced",
    "end_sent",
    "committed",
    "stored",
)
ACTIONS = {
    "stop": "SIGSTOP to itself",
    "kill": "SIGKILL to itself",
    "raise": "FailpointError",
    "cut": "the connection to the coordinators closed",
    "exit": "SIGTERM to itself",
}
log = logging.getLogger(__name__)

Failpoint = Callable[[str, Callable[[], None]], None]
"""Called with a name and a function that closes the task's connection."""


class FailpointError(Exception):
    """The fault that ``raise`` causes."""


def no_failpoint(name: str, disconnect: Callable[[], None]) -> None:
    """Do nothing: no failpoint is set."""


def parse_failpoints(wanted: str) -> Failpoint:
    """Return the failpoints of this list, see above. ``ValueError`` names the entry that is wrong."""
    return Failpoints(wanted).passed if wanted else no_failpoint


class Failpoints:
    def __init__(self, wanted: str) -> None:
        self._every: dict[str, list[tuple[str, int]]] = {}
        self._passages: Counter[str] = Counter()
        for each in wanted.split(","):
            name, action, every = self._parse(each.strip())
            self._every.setdefault(name, []).append((action, every))

    @staticmethod
    def _parse(each: str) -> tuple[str, str, int]:
        parts = each.split(":")
        if len(parts) != 3 or not parts[2].isdecimal() or int(parts[2]) < 1:
            raise ValueError(f"failpoints: {each!r} is not name:action:every, with every a number from 1")
        name, action, every = parts[0], parts[1], int(parts[2])
        if name not in NAMES:
            raise ValueError(f"failpoints: there is no failpoint {name!r}; there are {', '.join(NAMES)}")
        if action not in ACTIONS:
            raise ValueError(f"failpoints: there is no action {action!r}; there are {', '.join(ACTIONS)}")
        return name, action, every

    def passed(self, name: str, disconnect: Callable[[], None]) -> None:
        if name not in self._every:
            return
        self._passages[name] += 1
        for action, every in self._every[name]:
            if self._passages[name] % every == 0:
                log.warning("failpoint %s: %s", name, action)
                self._act(name, action, disconnect)

    @staticmethod
    def _act(name: str, action: str, disconnect: Callable[[], None]) -> None:
        match action:
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os.kill(os.getpid(), signal.SIGTERM)
            case "cut":
                disconnect()
            case "raise":
                raise FailpointError(f"failpoint {name}")
