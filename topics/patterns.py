r"""Patterns of the ids and texts in records, and the advice for a value that does not match.

Every pattern ends in `\Z`. Python's `$` also matches before a newline at the end, so `"1001\n"` would be an id.
"""

from collections.abc import Mapping

_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
"""C0 controls except tab and newline, DEL and C1 controls. They drive terminals, and they forge lines of logs."""
_DIRECTIONS = r"\u202a-\u202e\u2066-\u2069"
"""Embeddings, overrides and isolates of bidirectional text. They make a text look like another one."""
_SURROGATES = r"\ud800-\udfff"
"""Halves of a surrogate pair. They cannot be written as UTF-8."""
FORBIDDEN_IN_NOTES = _CONTROLS + _DIRECTIONS + _SURROGATES
FORBIDDEN = r"\t\n" + FORBIDDEN_IN_NOTES
"""Characters that no text of one line may contain."""

_PROVIDER = r"[a-z0-9-]{1,32}"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}"

PROVIDER = rf"^{_PROVIDER}\Z"
NAME = rf"^{_NAME}\Z"
ORDER = rf"^{_PROVIDER}:{_NAME}\Z"
CHARGE = r"^[!-~]{1,255}\Z"
OPTIONAL_CHARGE = r"^[!-~]{0,255}\Z"
CHARGE_REF = rf"(?:{_NAME}|~[0-9a-f]{{32}})"
"""Part of the idempotency key of a refund that stands for the charge."""
KEY_ID = r"^ik-[0-9a-f]{32}\Z"
IDEMPOTENCY_KEY = r'^(?:"((?:[ !#-\[\]-~]|\\["\\]){1,255})"|([A-Za-z0-9!#$%&\'*+.^_`|~:/-]{1,255}))\Z'
"""A string of RFC 9651 in quotes, or the characters of a token, which many clients send without quotes."""
CALL = rf"^{_PROVIDER}:{_NAME}/(charge|prepare|refund/{CHARGE_REF})\Z"
ROW_KEY = rf"^(?:{_PROVIDER}:)?{_NAME}(?:/[A-Za-z0-9._~:-]{{1,100}}){{0,4}}\Z"
"""Key of a record or row that begins with the id of an order or party."""
CURRENCY = r"^[A-Z]{3}\Z"
CURRENCY_OF_ANSWER = r"^[A-Za-z]{3}\Z"
TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z"
TIME_ZONE = r"^[A-Za-z0-9._+/-]{1,64}\Z"
_SIGNING_SECRET = r"whsec_(?:[A-Za-z0-9+/]{4}){7,21}(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)"
SIGNING_SECRETS = rf"^{_SIGNING_SECRET}(?: {_SIGNING_SECRET}){{0,3}}\Z"
"""Secrets of Standard Webhooks, separated by blanks: each padded base64 of 22 to 66 bytes. 24 to 64 are usual."""
CREDENTIALS = r"^[!-~]{1,4096}(?: [!-~]{1,4096}){0,7}\Z"
"""Value of the header `Authorization` (RFC 9110 section 11.6.2)."""
HTTP_URL = r"^https?://[!-.0-~][!-~]{0,1999}\Z"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*|\[[0-9A-Fa-f:.]{2,45}\])"
_PORT = r"(?::(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_PATH = r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
PARTY_URL = rf"^https?://{_HOST}{_PORT}{_PATH}\Z"
LINE = rf"^[^{FORBIDDEN}]*\Z"
NOTE = rf"^[^{FORBIDDEN_IN_NOTES}]*\Z"


def in_ecmascript(pattern: str) -> str:
    r"""Return a pattern as JSON Schema wants it: in ECMA 262, where `$` is the end of the text and `\Z` a letter.

    Surrogates are left out: no valid JSON has half of a pair, and engines refuse them.
    """
    return pattern.replace(r"\Z", "$").replace(_SURROGATES, "")


_IDS = "letters, digits, dots, dashes, tildes or underscores, and begin with a letter or digit"
_CHARACTERS = "control characters and characters that change the direction of text are not allowed"
ADVICE: Mapping[str, str] = {
    PROVIDER: "it must be 1 to 32 small letters, digits or dashes",
    NAME: f"it must be 1 to 64 {_IDS}",
    ORDER: "it must be an order's id, provider:external_id, such as my-shop:1001",
    CHARGE: "it must be 1 to 255 printable ASCII characters without blanks",
    OPTIONAL_CHARGE: "it must be at most 255 printable ASCII characters without blanks",
    KEY_ID: "it must be ik- and 32 hexadecimal digits, which follow from an Idempotency-Key",
    IDEMPOTENCY_KEY: "it must be 1 to 255 printable ASCII characters in quotes, with a backslash before each quote and "
    'backslash, such as "8e03978e-40d5"; a key of letters, digits and !#$%&\'*+-.^_`|~:/ needs no quotes',
    CALL: "it must be the key of a call: ORDER/charge, ORDER/prepare or ORDER/refund/CHARGE",
    ROW_KEY: "it must be the id of an order, driver, region or restaurant, or begin with one and a slash",
    CURRENCY: "it must be three capital letters, such as INR",
    CURRENCY_OF_ANSWER: "it must be three letters, such as INR",
    TIME_OF_DAY: "it must be a time of day, such as 11:30",
    TIME_ZONE: "it must be the IANA name of a time zone, such as Asia/Kolkata",
    SIGNING_SECRETS: "it must be whsec_ and 32 random bytes in base64, as `openssl rand -base64 32` prints them",
    CREDENTIALS: "it must be the value of the header Authorization in printable ASCII, such as Bearer KEY",
    HTTP_URL: "it must begin with http:// or https://, and be printable ASCII without blanks",
    PARTY_URL: "it must be a URL such as https://pos.example/orders, without user name, query and fragment",
    LINE: f"remove control characters from this text: {_CHARACTERS}, nor are tabs and line breaks",
    NOTE: f"remove control characters from this note: {_CHARACTERS}, except tab and newline",
}
"""Pattern -> the advice for a text that does not match it."""
