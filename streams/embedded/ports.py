"""Which TCP ports of this machine are free."""

import socket

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on `port`: on the loopback, and on all addresses, which some systems tell apart."""
    return _can_bind(LOOPBACK, port) and _can_bind("", port)


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a port is not free for a minute after use
        try:
            attempt.bind((host, port))
        except OSError:
            return False
        return True
