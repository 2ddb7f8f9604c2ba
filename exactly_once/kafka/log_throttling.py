"""Rate limits for aiokafka's log, which repeats one message a hundred times a second while a broker is away."""

import logging
import time

EVERY_S = 10.0


class RateLimitFilter(logging.Filter):
    """Passes one message of each template every ``EVERY_S`` seconds, with the number of those suppressed since."""

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


def throttle_aiokafka_logs() -> None:
    """Set the level WARNING and the filter on every logger of aiokafka. Call this once its modules are imported."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "aiokafka"]
    for logger in map(logging.getLogger, names):
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)  # every restore would log its assignment
        if not any(isinstance(present, RateLimitFilter) for present in logger.filters):
            logger.addFilter(RateLimitFilter())
