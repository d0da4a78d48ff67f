"""The one way to addresses that admins type: resolved once, judged, and connected to at that very address.

Whoever names a target names a host that others control: it may resolve to our own network, now or only the second time
it is asked (DNS rebinding), hang, drip or redirect. Nothing that is not public is reached unless the operator's
`GUESTKEY_NOTICE_NETWORKS` names it.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

from broker.base.addresses import Address, Network
from broker.base.settings import Settings
from broker.base.tls_reasons import explain_certificate_error
from broker.outbound.deadline import AbandonableWork, Deadline
from broker.outbound.smtp import NotSent

LONGEST_TARGET = 500
_NAMES = AbandonableWork(8)
_PORTS = {"http": 80, "https": 443}
# A cloud's machine-configuration service at a public-looking address.
_METADATA = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "192.0.0.192")))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def fault_of(url: str) -> str:
    """What is wrong with the form of a target; empty: nothing."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > LONGEST_TARGET:
        return f"It must be an address of at most {LONGEST_TARGET} plain characters."
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "It is no address."
    if parts.scheme not in _PORTS or not host:
        return "It must begin with https:// and name a host."
    if "@" in parts.netloc or parts.fragment or "\\" in url:
        return "It may hold no user name and no fragment."
    return ""


def is_inner_address(settings: Settings, url: str) -> bool:
    """Whether a target of good form is an address, in any spelling, where it may not lie. No name is looked up."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return not all(permitted(settings, ipaddress.ip_address(str(item[4][0]))) for item in found)


def shown(url: str) -> str:
    """A target without what may be secret in it: its scheme and host."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…"


def permitted(settings: Settings, address: Address) -> bool:
    """Whether a target may lie at this address: a public one, or one in a network the operator named."""
    return is_named(settings.notice_networks, address) or is_public(address)


def is_named(networks: Sequence[Network], address: Address) -> bool:
    """Whether one of these networks holds the address, or the IPv4 address that it only carries."""
    return any(_meant(address) in network for network in networks)


def is_public(address: Address) -> bool:
    """Whether everybody may reach this address: nobody's inner network, no machine itself, no cloud's own service."""
    address = _meant(address)
    if isinstance(address, IPv6Address) and address.is_site_local:
        # Deprecated, and called global by the standard library, but still what somebody's own network uses.
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and address not in _METADATA


def post(settings: Settings, url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Post to a target; returns the status it answered with. Its answer is not read any further.

    Raises:
        NotSent: it may not be reached, cannot be reached, or does not answer in time.
    """
    wrong = fault_of(url)
    if wrong:
        raise NotSent(f"The target cannot be used. {wrong}")
    parts = urlsplit(url)
    try:
        with Deadline(settings.notice_timeout) as deadline, _connected(settings, parts, deadline) as line:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            line.request("POST", path, body=body, headers=dict(headers))
            return line.getresponse().status
    except ssl.SSLCertVerificationError as error:
        raise NotSent(
            f"The target's certificate is not trusted: {explain_certificate_error(error, parts.hostname or '').why}."
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotSent(f"The target could not be reached ({type(error).__name__}).") from error


@contextlib.contextmanager
def _connected(settings: Settings, parts: SplitResult, deadline: Deadline) -> Iterator[http.client.HTTPConnection]:
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    addresses = _resolved(settings, host, deadline)
    if parts.scheme != "https" and not all(is_named(settings.notice_networks, address) for address in addresses):
        raise NotSent("The target has no TLS: only https:// may be used beyond GUESTKEY_NOTICE_NETWORKS.")
    line = http.client.HTTPConnection(parts.netloc)
    line.sock = deadline.connect([str(address) for address in addresses], port)
    try:
        if parts.scheme == "https":
            trusted = ssl.create_default_context(cafile=settings.notice_ca_file)
            line.sock = trusted.wrap_socket(line.sock, server_hostname=host)
        yield line
    finally:
        line.close()


def _resolved(settings: Settings, host: str, deadline: Deadline) -> list[Address]:
    addresses = [ipaddress.ip_address(found) for found in deadline.look_up(host, _NAMES)]
    # One that is not permitted among others that are is no accident.
    if not addresses or not all(permitted(settings, address) for address in addresses):
        raise NotSent("The target lies inside a network: GUESTKEY_NOTICE_NETWORKS does not name it.")
    return addresses


def _meant(address: Address) -> Address:
    """The address itself, or the IPv4 address that it only carries."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
