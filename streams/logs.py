"""Format of a worker's log: lines for people on a terminal, one JSON object a line elsewhere (`DABBAWALA_LOG_FORMAT`).

Every logger of the process, also those of Faust and aiokafka, is an ordinary logger of `logging`; structlog formats its
records. A line that concerns an order has the order's id and the id of its trace (`about_order`), one about a task its
partition: pass them as `extra`. They cost nothing where a level is off.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import Any

import structlog
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter
from structlog.typing import EventDict, Processor

from streams.settings import LogFormat
from streams.tracing.ids import trace_hex
from topics.text import plain, plain_lines

FIELDS = ("order", "trace_id", "partition")
"""Attributes of a log record (`extra`) that its line shows."""


def about_order(order: str) -> Mapping[str, str]:
    """Return the fields of a line about an order, as ``extra`` of a logging call."""
    return {"order": order, "trace_id": trace_hex(order)}


def logging_config(log_format: LogFormat) -> dict[str, Any]:
    """Return the changes to the logging configuration of a Faust worker (``logging_config`` of its app).

    Faust's handler for a terminal or a pipe has the formatter ``colored``, that for `--logfile` has ``default``.
    """
    return {
        "merge": True,
        "formatters": {
            "colored": {"()": partial(formatter, log_format)},
            "default": {"()": partial(formatter, LogFormat.JSON if log_format is LogFormat.AUTO else log_format)},
        },
    }


def formatter(log_format: LogFormat) -> logging.Formatter:
    """Return the formatter of this format. `AUTO` looks at stderr, where a worker logs."""
    is_terminal = sys.stderr.isatty()
    as_json = log_format is LogFormat.JSON or (log_format is LogFormat.AUTO and not is_terminal)
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.processors.format_exc_info, _make_harmless, _console(colors=is_terminal)]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(FIELDS),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _console(*, colors: bool) -> ConsoleRenderer:
    """Return the renderer of lines for people: time, level, message, then what the line is about."""
    styles = ConsoleRenderer.get_default_column_styles(colors)
    level_styles = ConsoleRenderer.get_default_level_styles(colors)

    def column(style: str, prefix: str = "", postfix: str = "") -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(None, style, styles.reset, str, prefix=prefix, postfix=postfix)

    def level(key: str, value: object) -> str:
        return f"[{level_styles.get(str(value), '')}{str(value).upper()}{styles.reset}]"

    return ConsoleRenderer(
        columns=[
            Column("timestamp", column(styles.timestamp, "[", "]")),
            Column("level", level),
            Column("event", column("")),
            *(
                Column(name, KeyValueColumnFormatter(styles.kv_key, styles.kv_value, styles.reset, str))
                for name in FIELDS
            ),
            Column("logger", lambda _key, _value: ""),
            Column("", KeyValueColumnFormatter(styles.kv_key, styles.kv_value, styles.reset, str)),
        ]
    )


def _make_harmless(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> EventDict:
    """Escape characters that drive a terminal; JSON escapes them by itself. A message may have several lines."""
    lines = ("event", "exception")
    return {
        name: (plain_lines(value) if name in lines else plain(value)) if isinstance(value, str) else value
        for name, value in event.items()
    }
