"""In an outage of the broker aiokafka says the same thing a hundred times a second; once in a while is enough."""

import logging
import time

EVERY_S = 10.0


class OncePerWhile(logging.Filter):
    """Lets a message of one template through every ``EVERY_S``, and says how many it kept back."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now, (last, kept_back) = time.monotonic(), self._said.get(str(record.msg), (0.0, 0))
        if last and now - last < EVERY_S:
            self._said[str(record.msg)] = (last, kept_back + 1)
            return False
        self._said[str(record.msg)] = (now, 0)
        if kept_back:
            record.msg = f"{record.msg} (and {kept_back} more like this)"
        return True


def quieten() -> None:
    """No chatter, and the filter, on every logger of aiokafka's. To be called once its modules are imported."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "aiokafka"]
    for logger in map(logging.getLogger, names):
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)  # every restore would tell what it assigns
        if not any(isinstance(present, OncePerWhile) for present in logger.filters):
            logger.addFilter(OncePerWhile())
