"""Verification by a party that a request is the worker's: signatures of Standard Webhooks, and `Authorization`."""

import argparse
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from simulators.http_server import Handler, Problem, idempotency_key
from topics.party_secrets import PartySecrets, parse_party_secrets
from topics.records import Undecodable

Verify = Callable[[web.Request], None]


def secrets_option(parser: argparse.ArgumentParser) -> None:
    """Add the file of secrets."""
    parser.add_argument(
        "--secrets",
        type=read_secrets,
        default=PartySecrets(),
        metavar="FILE",
        help="file of secrets, as DABBAWALA_PARTY_SECRETS: refuse (401) a request without the proof of its party; "
        "default: take any request",
    )


def read_secrets(name: str) -> PartySecrets:
    """Parse the name of a file into its secrets."""
    try:
        return parse_party_secrets(Path(name).read_bytes())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{name} cannot be read ({error.strerror})") from None
    except Undecodable as wrong:
        raise argparse.ArgumentTypeError(f"{name} is no file of secrets of parties ({wrong})") from None


def signed(handler: Handler, secrets: PartySecrets) -> Handler:
    """Return the handler of tickets with 401 for one without a signature of its restaurant, if that has a secret."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if own := secrets.restaurants.get(request.match_info["restaurant"]):
            _verify_signature(request, await request.read(), own)
        return await handler(request)

    return handle


def authorized(handler: Handler, secrets: PartySecrets) -> Handler:
    """Return the handler with 401 for a request without the credentials, if there are any."""

    async def handle(request: web.Request) -> web.StreamResponse:
        given, expected = request.headers.get("Authorization", ""), secrets.payment_authorization
        if expected is not None and not compare_digest(given.encode(errors="surrogatepass"), expected.encode()):
            raise Problem(401, "send the credentials of this provider in the header Authorization")
        return await handler(request)

    return handle


def _verify_signature(request: web.Request, body: bytes, secrets: tuple[str, ...]) -> None:
    """Raise a `Problem` (401) unless one of the secrets signed the request within the last five minutes.

    The signature does not cover `Idempotency-Key`, so that must be the id of the message.
    """
    if idempotency_key(request) != request.headers.get("webhook-id"):
        raise Problem(401, "sign the request (Standard Webhooks), with the Idempotency-Key as its webhook-id")
    reason = ""
    for secret in secrets:
        try:
            Webhook(secret).verify(body, dict(request.headers), json_parse=False)
            return
        except (WebhookVerificationError, ValueError) as wrong:  # ValueError: a signature without a version
            reason = str(wrong)
    raise Problem(401, f"the signature of the request is not valid: {reason}")
