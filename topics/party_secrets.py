"""Secrets that prove to outside parties who calls them: one JSON object, in a file and never on a topic.

    {"restaurants": {"ballard-slice": "whsec_..."}, "payment_authorization": "Bearer ..."}

To replace a restaurant's secret without a refusal, give the new and the old one, separated by a blank: requests then
have both signatures.
"""

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from topics import patterns
from topics.records import Reader, Undecodable

PARTY_ID = re.compile(patterns.NAME)
SigningSecrets = Annotated[str, Meta(pattern=patterns.SIGNING_SECRETS)]
Credentials = Annotated[str, Meta(pattern=patterns.CREDENTIALS, min_length=8)]


class PartySecrets(NamedTuple):
    """Secrets of all parties. A party without one gets requests without a proof."""

    restaurants: Mapping[str, tuple[str, ...]] = {}
    """Restaurant -> secrets with which its tickets are signed (Standard Webhooks, https://www.standardwebhooks.com)."""
    payment_authorization: str | None = None
    """Value of the header `Authorization` of requests to the payment provider."""

    def __repr__(self) -> str:
        return f"PartySecrets of {len(self.restaurants)} restaurants"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    restaurants: dict[str, msgspec.Raw] = {}
    payment_authorization: Credentials | None = None


_files: Reader[_File] = Reader(_File)
_secrets: Reader[str] = Reader(SigningSecrets)


def parse_party_secrets(content: bytes) -> PartySecrets:
    """Return the secrets in a file. Raises `Undecodable`, whose pointer names the restaurant that is wrong."""
    try:
        file = _files.read(content)
    except Undecodable as wrong:
        if "field" in wrong.reason:  # the name of a wrong field may be a secret
            raise Undecodable("its fields are `restaurants` and `payment_authorization`") from None
        raise
    return PartySecrets({name: _of(name, raw) for name, raw in file.restaurants.items()}, file.payment_authorization)


def _of(restaurant: str, raw: msgspec.Raw) -> tuple[str, ...]:
    try:
        return tuple(_secrets.read(bytes(raw)).split())
    except Undecodable as wrong:
        shown = restaurant if PARTY_ID.fullmatch(restaurant) else "?"  # it may be a secret in the wrong place
        raise Undecodable(wrong.reason, f"/restaurants/{shown}") from None
