"""Numbers in requests."""

MAX_DIGITS = 20
"""More digits than any valid number here has. Python raises an error for thousands of digits."""


def whole_number(text: str) -> int | None:
    """Return the non-negative number that the text is in decimal digits; None if it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None
