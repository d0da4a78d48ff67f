"""Who is at the other end, however that is written: the one place that turns a peer into an address.

Rules, rates, sessions, leases and events go by what is made here. One host has many spellings: on a dual-stack socket
an IPv4 peer shows as `::ffff:203.0.113.7`, behind a translator as `64:ff9b::203.0.113.7`, in a header with a port,
brackets or a zone. Each becomes the same address, or none at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# An IPv4 host as a dual-stack socket (RFC 4291) and translators (RFC 6052, RFC 7915) show it.
_SAME_HOST = tuple(map(IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "::ffff:0:0:0/96")))
_COMPATIBLE = IPv6Network("::/96")
_OWN = frozenset({IPv6Address("::"), IPv6Address("::1")})
# What one customer commonly holds, and what the largest sites hold (RFC 6177): an attacker has every address in it.
_SUBNET, _SITE = 64, 48
_LONGEST = 128


def parse(text: str | None) -> Address | None:
    """The address that a text means, with an IPv4 host always as IPv4 and no zone; None if it means none."""
    if not text or len(text) > _LONGEST:
        return None
    try:
        return _meant(ip_address(text))
    except ValueError:
        return None


def parse_network(text: str) -> Network:
    """The network that a text in CIDR notation means; ranges of IPv4 hosts always as IPv4.

    Raises:
        ValueError: it is none, or has bits set below its prefix.
    """
    network = ip_network(text)
    if isinstance(network, IPv6Network):
        for same in _SAME_HOST:
            if network.subnet_of(same):
                return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def lies_in(text: str | None, networks: Iterable[Network]) -> bool | None:
    """Whether an address lies in one of the networks; None where that cannot be known.

    That is so without an address, and for the end of a tunnel (6to4, Teredo) that goes out from one of the networks:
    who is behind it is not said.
    """
    networks, address = tuple(networks), parse(text)
    if address is None:
        return None
    if any(address in network for network in networks):
        return True
    origin = _origin(address)
    return None if origin is not None and any(origin in network for network in networks) else False


def counted_as(text: str | None) -> tuple[str, str]:
    """What requests of an address are counted under: it and, of IPv6, its /64; then the site it belongs to, or "".

    Whoever has one IPv6 address has a whole subnet of them, and often a /48 of subnets.
    """
    address = parse(text)
    if isinstance(address, IPv6Address):
        return str(_around(address, _SUBNET)), str(_around(address, _SITE))
    return "" if address is None else str(address), ""


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a request comes from and how: the client's address, if it can be known, and `http` or `https`."""

    address: str | None
    scheme: str


class Proxies:
    """The proxies whose word counts, by their networks."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(parse_network(str(network)) for network in networks)

    def __contains__(self, address: str | None) -> bool:
        return lies_in(address, self._networks) is True

    def seen(self, peer: str | None, scheme: str, headers: Sequence[tuple[bytes, bytes]]) -> Seen:
        """Where a request comes from, by its connection and, from a proxy of ours, by `X-Forwarded-*`.

        Each proxy adds an entry at the end, so what a client wrote itself stands before what our proxies saw and is
        not reached. `Forwarded` (RFC 7239) is not read: proxies that do not know it pass a client's on.
        """
        if peer not in self:
            return Seen(_text(parse(peer)), scheme)
        hops, schemes = _entries(headers, b"x-forwarded-for"), _entries(headers, b"x-forwarded-proto")
        at = self._outermost(hops)
        address = _hop(hops[at]) if hops else parse(peer)
        if schemes:
            # Added by the same proxies, the two lists go together; otherwise the client's own leg is the first.
            said = schemes[at if len(schemes) == len(hops) else 0].lower()
            scheme = said if said in ("http", "https") else "http"
        return Seen(_text(address), scheme)

    def _outermost(self, hops: list[str]) -> int:
        """The place of the first address from the right that is no proxy of ours: the client's."""
        for at in range(len(hops) - 1, -1, -1):
            if _text(_hop(hops[at])) not in self:
                return at
        return 0


def _entries(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[str]:
    joined = ",".join(value.decode("latin-1") for key, value in headers if key == name)
    return [entry.strip(" \t") for entry in joined.split(",") if entry.strip(" \t")]


def _hop(entry: str) -> Address | None:
    """The address in an entry of `X-Forwarded-For`: alone, quoted, or with brackets and a port."""
    entry = entry.strip('"')
    if entry.startswith("["):
        inside, closed, port = entry[1:].partition("]")
        return parse(inside) if closed and _is_port(port) else None
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return parse(host) if _is_port(f":{port}") else None
    return parse(entry)


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and text[1:].isascii() and text[1:].isdigit() and len(text) <= 6)


def _meant(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if any(address in same for same in _SAME_HOST):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return IPv6Address(int(address))  # without its zone, which names a cable of ours


def _origin(address: Address) -> IPv4Address | None:
    """The IPv4 host a tunnel goes out from whose addresses are made of its own."""
    if isinstance(address, IPv4Address) or address in _OWN:
        return None
    if address in _COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.teredo[1] if address.teredo else address.sixtofour


def _around(address: IPv6Address, length: int) -> IPv6Network:
    return IPv6Network((int(address) >> (128 - length) << (128 - length), length))


def _text(address: Address | None) -> str | None:
    return None if address is None else str(address)
