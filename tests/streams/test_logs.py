"""Lines of the log: JSON for programs, text for people, and strangers' characters harmless in both."""

import io
import json
import logging
import sys
from typing import Any

import pytest

from streams.logs import about_order, formatter, logging_config
from streams.settings import LogFormat
from streams.tracing.ids import trace_hex

HOSTILE = "a\x1b[2J\u202eb\nc"


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def written(log_format: LogFormat, *message: Any, **more: Any) -> str:
    """Return the line of a message."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(log_format))
    record = logging.LogRecord("streams.x", logging.WARNING, __file__, 1, message[0], message[1:], None)
    vars(record).update(more)
    handler.handle(record)
    return stream.getvalue()


def test_json_has_level_message_order_trace_and_partition() -> None:
    line = json.loads(written(LogFormat.JSON, "task %d broke", 3, partition=3, **about_order("p:1")))
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "task 3 broke",
        "level": "warning",
        "logger": "streams.x",
        "order": "p:1",
        "trace_id": trace_hex("p:1"),
        "partition": 3,
    }


def test_text_has_the_message_first_and_what_it_is_about() -> None:
    line = written(LogFormat.CONSOLE, "task %d broke", 3, partition=3)
    assert line.endswith("[WARNING] task 3 broke partition=3\n")
    assert "streams.x" not in line


def test_json_of_a_stranger_is_one_line() -> None:
    line = written(LogFormat.JSON, "%s", HOSTILE, order=HOSTILE)
    assert (line.count("\n"), line.isascii(), line.isprintable()) == (1, True, False)
    assert json.loads(line)["event"] == HOSTILE


def test_text_of_a_stranger_drives_no_terminal() -> None:
    line = written(LogFormat.CONSOLE, "%s", HOSTILE, order=HOSTILE)
    assert "a\\u001b[2J\\u202eb\nc" in line, "a message may have lines, and escapes nothing else"
    assert "order=a\\u001b[2J\\u202eb\\u000ac" in line, "a value has one line"
    assert "\x1b" not in line
    assert "\u202e" not in line


def test_an_error_has_its_stack() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        error = sys.exc_info()
    assert "ValueError: no" in json.loads(written(LogFormat.JSON, "failed", exc_info=error))["exception"]
    assert "ValueError: no" in written(LogFormat.CONSOLE, "failed", exc_info=error)


@pytest.mark.parametrize(("stream", "is_json"), [(Terminal(), False), (io.StringIO(), True)])
def test_auto_writes_text_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, is_json: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert written(LogFormat.AUTO, "hello").startswith("{") is is_json


def test_a_file_of_the_log_has_json_unless_text_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    made = logging_config(LogFormat.AUTO)["formatters"]["default"]["()"]()
    line = made.format(logging.LogRecord("x", logging.INFO, "", 1, "hello", (), None))
    assert json.loads(line)["event"] == "hello"
