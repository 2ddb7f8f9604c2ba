"""HTTP clients without TLS. All parties of the tests speak plain HTTP on this machine."""

import ssl

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Pass as `verify` to httpx, which loads all certificates of the machine into each new client otherwise. That takes
longer than most requests, and a test that polls repeats it with each request."""

JSON = {"Content-Type": "application/json"}
"""Header of a request with a JSON body."""
