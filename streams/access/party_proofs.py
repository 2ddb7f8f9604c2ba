"""Proofs to outside parties that a request is ours, and the file of secrets (``DABBAWALA_PARTY_SECRETS``).

A ticket is signed as Standard Webhooks has it; the payment provider gets the header `Authorization`. The performer adds
a proof to each attempt as it sends it. No row, record or log has a secret or a proof.
"""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from standardwebhooks import Webhook

from streams.access.keys import REREAD_S, file_version
from streams.local.private_directory import OTHERS
from topics.party_secrets import PartySecrets, parse_party_secrets
from topics.records import Undecodable, instant

log = logging.getLogger(__name__)

HIDDEN = "[secret]"
MIN_SECRET_LENGTH = 8
"""Shorter words of the credentials name their kind."""
"""Text in place of credentials that a party repeats in its answer."""


class WrongPartySecrets(ValueError):
    """The file of secrets cannot be used. The message says why and what to do, and shows no secret."""


def read_party_secrets(file: Path) -> PartySecrets:
    """Return the secrets in a file. Raises `WrongPartySecrets`."""
    try:
        with file.open("rb") as opened:
            if os.fstat(opened.fileno()).st_mode & OTHERS:
                raise WrongPartySecrets(f"Other users may read the secrets in {file}: run `chmod 600 {file}`.")
            return parse_party_secrets(opened.read())
    except OSError as error:
        raise WrongPartySecrets(
            f"The secrets of parties {file} cannot be read ({error.strerror}): see DABBAWALA_PARTY_SECRETS."
        ) from None
    except Undecodable as wrong:
        raise WrongPartySecrets(f"{file} is no file of secrets of parties ({wrong}): see docs/operations.md.") from None


class PartyProofs:
    """Proofs with the secrets of a file, which is reread soon after it changes.

    A file that cannot be used leaves the last secrets in use. If none were read yet, every proof raises
    `WrongPartySecrets`, so that no request is sent without its proof.
    """

    def __init__(self, file: Path | None, now_ms: Callable[[], int], clock: Callable[[], float]) -> None:
        """Open no file: the first proof reads it. Without a ``file`` no request has a proof."""
        self._file = file
        self._now_ms = now_ms
        self._clock = clock
        self._look_at = clock()
        self._version: tuple[int, int, int] | None = None
        self._secrets = PartySecrets() if file is None else None

    def of_ticket(self, restaurant: str, key: str, body: bytes) -> Mapping[str, str]:
        """Return the headers that sign a request to a restaurant; none if it has no secret.

        The idempotency key is the id of the message, so all attempts have the same id. No id can be read as another id
        with a time: it ends in `/prepare`, and a time has digits alone.
        """
        secrets = self._current().restaurants.get(restaurant, ())
        if not secrets:
            return {}
        at, text = instant(self._now_ms()), body.decode()
        return {
            "webhook-id": key,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(Webhook(secret).sign(key, at, text) for secret in secrets),
        }

    def of_payment(self) -> Mapping[str, str]:
        """Return the headers that identify us to the payment provider; none without credentials."""
        credentials = self._current().payment_authorization
        return {} if credentials is None else {"Authorization": credentials}

    def _current(self) -> PartySecrets:
        if self._file is not None and (self._secrets is None or self._clock() >= self._look_at):
            self._secrets = self._reread(self._file)
            self._look_at = self._clock() + REREAD_S
        assert self._secrets is not None
        return self._secrets

    def _reread(self, file: Path) -> PartySecrets:
        version = file_version(file)
        if self._secrets is not None and version == self._version:
            return self._secrets
        try:
            found = read_party_secrets(file)
        except WrongPartySecrets as wrong:
            if self._secrets is None:
                raise
            log.error("%s The secrets that were read before stay in use.", wrong)
            found = self._secrets
        self._version = version
        return found


def without_credentials(answer: str, proof: Mapping[str, str]) -> str:
    """Return the text of an answer without the credentials that were sent, which a party may repeat in an error."""
    for part in proof.get("Authorization", "").split():
        if len(part) >= MIN_SECRET_LENGTH:
            answer = answer.replace(part, HIDDEN)
    return answer


NO_PROOFS = PartyProofs(None, int, float)
"""Proofs of an installation without secrets."""
