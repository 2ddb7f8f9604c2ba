"""URLs of outside parties: a scheme, a host, perhaps a port, and a path.

A user name in a URL would show in logs and answers. A query or a fragment would swallow the path that a call appends.
"""

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*|\[[0-9A-Fa-f:.]{2,45}\])"
_PORT = r"(?::(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_PATH = r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
PATTERN = rf"^https?://{_HOST}{_PORT}{_PATH}\Z"
PartyUrl = Annotated[
    str, Meta(pattern=PATTERN, max_length=1000, description="http or https, host, port and path alone")
]
SHAPE = "it must be a URL such as https://pos.example/orders, without user name, query and fragment"


def party_url_problem(url: str, *, allow_http: bool) -> str:
    """Return the reason that a party cannot be called at this URL; empty if it can.

    Without ``allow_http``, http is for this machine alone: others could read and change a call on its way.
    """
    if not re.search(PATTERN, url):
        return SHAPE
    if url.startswith("https://") or allow_http or is_loopback(urlsplit(url).hostname or ""):
        return ""
    return "it must begin with https://, because DABBAWALA_ALLOW_HTTP_PARTIES is not set to 1"


def is_loopback(host: str) -> bool:
    """Return whether a host name or IP address, without brackets, always means the machine of the caller."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
