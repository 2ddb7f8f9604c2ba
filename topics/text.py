"""Free text that people write, and texts of others made harmless for terminals and logs."""

import re
from typing import Annotated

from msgspec import Meta

from topics.patterns import FORBIDDEN, LINE, NOTE

MAX_NAME_LENGTH = 200
MAX_TEXT_LENGTH = 1000

Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH, pattern=LINE)]
"""A name, number or code of one line."""
Text = Annotated[str, Meta(max_length=MAX_TEXT_LENGTH, pattern=LINE)]
"""An address or a reason: one line."""
Note = Annotated[str, Meta(max_length=MAX_TEXT_LENGTH, pattern=NOTE)]
"""A note of several lines."""

_FORBIDDEN = re.compile(f"[{FORBIDDEN}]")
_FORBIDDEN_BUT_NEWLINE = re.compile(rf"(?!\n)[{FORBIDDEN}]")


def plain(text: str) -> str:
    r"""Return a text with each forbidden character written as `\u001b`, harmless for terminals and log lines."""
    return _FORBIDDEN.sub(_escape, text)


def plain_lines(text: str) -> str:
    r"""Return a text of several lines like :func:`plain`, with its newlines. JSON stays the same JSON."""
    return _FORBIDDEN_BUT_NEWLINE.sub(_escape, text)


def cleaned(text: str, limit: int = MAX_TEXT_LENGTH) -> str:
    """Return a text that the record types accept: forbidden characters become blanks, and ``limit`` cuts it."""
    return _FORBIDDEN.sub(" ", text[:limit]).strip()


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
