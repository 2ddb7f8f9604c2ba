"""Repeatable draws: a seed and a key decide the outcome, and not the moment."""

import argparse
from hashlib import blake2b


def is_drawn(share: float, seed: str, key: str) -> bool:
    """Return whether this key belongs to the given share (0 to 1) of all keys."""
    digest = blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def split_rule(text: str, *kinds: str) -> tuple[str, str]:
    """Split a rule `kind` or `kind:value`. Raises `ArgumentTypeError`, with the list of kinds, for any other text."""
    kind, _, value = text.partition(":")
    known = {known.partition(":")[0]: ":" in known for known in kinds}
    if kind not in known or bool(value) != known[kind]:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(kinds)}")
    return kind, value
