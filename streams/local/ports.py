"""Free TCP ports of this machine."""

import socket

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port`.

    Tries the loopback address and all addresses, because some systems check them separately.
    """
    return _can_bind(LOOPBACK, port) and _can_bind("", port)


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # without it, a port stays taken for a minute after use
        try:
            attempt.bind((host, port))
        except OSError:
            return False
        return True
