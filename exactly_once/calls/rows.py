"""An outgoing call as a row of the table ``calls``, in JSON.

    key     idempotency key of the call
    value   {"request": {...}, "attempt": 2, "due_ms": 1700000000000, "why": "status 500"}

A request that is no JSON object is kept in base64, under ``base64`` instead of ``request``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

CALLS = "calls"
MAX_ERROR_CHARS = 500
GROWTH_BYTES = 4_000
"""Growth of a row from attempt to attempt, at most: ``why`` at 6 bytes a character, and two numbers."""


@dataclass(frozen=True, slots=True)
class Call:
    """One row of ``calls``. The attempt is due at ``due_ms``; ``last_error`` is that of the attempt before."""

    request: bytes
    attempt: int = 1
    due_ms: int = 0
    last_error: str = ""


class _Row(msgspec.Struct, omit_defaults=True):
    """JSON form of a call. The request is embedded as it is, or in base64 where it is no JSON object."""

    request: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET
    attempt: int = 1
    due_ms: int = 0
    why: str = ""


_encode_row: Callable[[_Row], bytes] = msgspec.json.Encoder().encode
_decode_row: Callable[[bytes], _Row] = msgspec.json.Decoder(_Row).decode


def encode_call(call: Call) -> bytes:
    """Return the row of a call."""
    row = _Row(attempt=call.attempt, due_ms=call.due_ms, why=call.last_error)
    if _is_json_object(call.request):
        row.request = msgspec.Raw(call.request)
    else:
        row.base64 = call.request
    return _encode_row(row)


def decode_call(row: bytes) -> Call:
    """Return the call of a row."""
    found = _decode_row(row)
    request = found.base64 if found.request is msgspec.UNSET else bytes(found.request)
    return Call(request or b"", found.attempt, found.due_ms, found.why)


def _is_json_object(request: bytes) -> bool:
    """Return whether a row can embed the request as it is: without blanks around, so that the same bytes come back."""
    if not (request.startswith(b"{") and request.endswith(b"}")):
        return False
    try:
        msgspec.json.decode(request)
    except (ValueError, RecursionError):
        return False
    return True
