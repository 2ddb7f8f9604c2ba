"""IP addresses that calls may reach. A catalogue's maintainer chooses the URLs, and not what is inside this network.

An address is checked when a connection is made, after its name was looked up. So a name cannot be checked with one
address and called at another.
"""

import errno
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp import AddrInfoType

Address = IPv4Address | IPv6Address
METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)
"""Services of cloud providers that give out the credentials of the machine."""
NAT64, TRANSLATED_IPV4 = ip_network("64:ff9b::/96"), ip_network("::/96")
"""Networks of IPv6 addresses whose last 32 bits are an IPv4 address (RFC 6052, RFC 4291)."""


class AllowedAddresses:
    """Public addresses, and those of the private networks that are allowed."""

    def __init__(self, networks: Iterable[str]) -> None:
        """``networks`` are loopback or private networks that calls may reach, such as ``10.0.0.0/8``."""
        self._networks = [ip_network(network) for network in networks]

    def __contains__(self, text: str) -> bool:
        """Return whether calls may reach this IP address."""
        address = _inner(ip_address(text.partition("%")[0]))
        if address in METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
            return False
        return any(address in network for network in self._networks) or (address.is_global and not address.is_reserved)

    def connect_socket(self, address: AddrInfoType) -> socket.socket:
        """Return a socket for a connection to this address. Raises `PermissionError` if calls may not reach it."""
        family, kind, protocol, _, place = address
        if str(place[0]) not in self:
            raise PermissionError(errno.EACCES, f"calls may not reach {place[0]}: see DABBAWALA_ALLOWED_NETWORKS")
        return socket.socket(family, kind, protocol)


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for; any other address as it is."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64 or (address in TRANSLATED_IPV4 and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
