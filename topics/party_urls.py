"""URLs of outside parties: a scheme, a host, perhaps a port, and a path.

A user name in a URL would show in logs and answers. A query or a fragment would swallow the path that a call appends.
"""

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from topics import patterns

PartyUrl = Annotated[
    str, Meta(pattern=patterns.PARTY_URL, max_length=1000, description="http or https, host, port and path alone")
]


def party_url_problem(url: str, *, allow_http: bool) -> str:
    """Return the reason that a party cannot be called at this URL; empty if it can.

    Without ``allow_http``, http is for this machine alone: others could read and change a call on its way.
    """
    if not re.search(patterns.PARTY_URL, url):
        return patterns.ADVICE[patterns.PARTY_URL]
    if url.startswith("https://") or allow_http or is_loopback(urlsplit(url).hostname or ""):
        return ""
    return "it must begin with https://, because DABBAWALA_ALLOW_HTTP_PARTIES is not set to 1"


def is_loopback(host: str) -> bool:
    """Return whether a host name or IP address, without brackets, always means the machine of the caller."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
