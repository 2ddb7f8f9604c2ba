"""What is left to chance, yet the same whenever the same is asked: a seed and a key decide it, not the moment."""

import argparse
from hashlib import blake2b


def falls_under(share: float, seed: str, key: str) -> bool:
    """Whether this key is one of that share of all keys."""
    digest = blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def split_rule(text: str, *kinds: str) -> tuple[str, str]:
    """A rule given as `kind` or `kind:value`, taken apart; `argparse` tells the user which kinds there are."""
    kind, _, value = text.partition(":")
    known = {known.partition(":")[0]: ":" in known for known in kinds}
    if kind not in known or bool(value) != known[kind]:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(kinds)}")
    return kind, value
