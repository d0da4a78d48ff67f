"""One host, one address: every spelling of a peer, and every chain of forwarded headers, means one thing or nothing."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.base.addresses import Proxies, Seen, counted_as, lies_in, parse, parse_network

HOST = "203.0.113.7"
DENIED = (ip_network("203.0.113.0/24"),)
PROXIES = Proxies([ip_network("192.0.2.0/24"), ip_network("2001:db8:aa::/48")])
PROXY = "192.0.2.80"
v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)


def spellings(address: IPv4Address) -> list[str]:
    """Everything a peer that is this IPv4 host may be called, and ways to write it."""
    groups = f"{int(address) >> 16:x}:{int(address) & 0xFFFF:x}"
    return [
        str(address),
        f"::ffff:{address}",
        f"::FFFF:{groups}",
        f"0:0:0:0:0:ffff:{address}",
        f"0000:0000:0000:0000:0000:ffff:{groups}",
        f"::ffff:{address}%eth0",
        f"64:ff9b::{address}",
        f"0064:ff9b:0:0:0:0:{groups}",
        f"::ffff:0:{address}",
    ]


@given(v4)
def test_ipv4_spellings_are_normalised(address: IPv4Address) -> None:
    network = (IPv4Network((int(address) & 0xFFFFFF00, 24)),)
    for text in spellings(address):
        assert parse(text) == address, text
        assert lies_in(text, network) is True, text
        assert counted_as(text) == (str(address), ""), text


@given(v6)
def test_ipv6_spellings_are_normalised(address: IPv6Address) -> None:
    said = {str(parse(text)) for text in (str(address), address.exploded, address.exploded.upper(), f"{address}%1")}
    assert len(said) == 1


@given(st.text() | st.from_regex(r"[0-9a-fA-F:.%\[\]/]{0,40}"))
def test_any_text_parses_to_one_spelling_or_none(text: str) -> None:
    found = parse(text)
    assert found is None or (parse(str(found)) == found and "%" not in str(found))
    if found is None:
        assert lies_in(text, DENIED) is None, "unknown, which never allows more"


@pytest.mark.parametrize("text", ["", None, "203.0.113.07", "203.0.113.7:80", "3405803783", "0xcb.0.113.7", "unknown"])
def test_invalid_address_is_unknown(text: str | None) -> None:
    assert parse(text) is None and lies_in(text, DENIED) is None and counted_as(text) == ("", "")


@pytest.mark.parametrize("text", ["2002:cb00:7107::1", "2001:0:4136:e378:8000:63bf:34ff:8ef8", "::203.0.113.7"])
def test_tunnel_addresses_are_unknown_in_their_network(text: str) -> None:
    """It may be anybody behind that host: neither let in as of the network, nor past where it is denied."""
    assert lies_in(text, DENIED) is None
    assert lies_in(text, [ip_network("198.51.100.0/24")]) is False
    assert lies_in(text, [ip_network(f"{text}/128")]) is True


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ("64:ff9b::203.0.113.0/120", "203.0.113.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
    ],
)
def test_networks_of_ipv4_hosts_are_ipv4(text: str, meant: str) -> None:
    assert parse_network(text) == ip_network(meant)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_ipv6_subnet_counts_as_one_address(site: int, subnet: int, one: int, other: int) -> None:
    here = (0x2A << 120) | (site >> 8 << 80) | (subnet << 64)
    assert counted_as(str(IPv6Address(here | one))) == counted_as(str(IPv6Address(here | other)))
    beside = str(IPv6Address((here ^ (1 << 64)) | one))
    assert counted_as(beside)[0] != counted_as(str(IPv6Address(here | one)))[0]
    assert counted_as(beside)[1] == counted_as(str(IPv6Address(here | one)))[1]


def forwarded(*chain: str, proto: str | None = None) -> list[tuple[bytes, bytes]]:
    """Headers as a proxy passes them on; an entry of the chain a header line."""
    lines = [(b"x-forwarded-for", entry.encode()) for entry in chain]
    return lines + ([] if proto is None else [(b"x-forwarded-proto", proto.encode())])


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (["198.51.100.4"], "198.51.100.4"),
        (["198.51.100.4:4711"], "198.51.100.4"),
        (["::ffff:198.51.100.4"], "198.51.100.4"),
        (["[::ffff:198.51.100.4]:443"], "198.51.100.4"),
        (['"[2001:db8::7]:443"'], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["2001:DB8:0::7%eth0"], "2001:db8::7"),
        (["203.0.113.9, 198.51.100.4"], "198.51.100.4"),
        (["203.0.113.9", "198.51.100.4, 192.0.2.81"], "198.51.100.4"),
        (["203.0.113.9, 198.51.100.4, ::ffff:192.0.2.81, [2001:db8:aa::1]:80"], "198.51.100.4"),
        (["192.0.2.80, 192.0.2.81"], PROXY),
        (["192.0.2.99, 203.0.113.9, 192.0.2.81"], "203.0.113.9"),
        ([""], PROXY),
        ([" , ,"], PROXY),
        (["198.51.100.4, unknown"], None),
        (["198.51.100.4, _hidden"], None),
        (["198.51.100.4, [::1"], None),
        (["198.51.100.4, 198.51.100.5:http"], None),
        (["198.51.100.4, 198.51.100.005"], None),
        (["198.51.100.4\xa0"], None),
    ],
)
def test_client_is_the_rightmost_untrusted_forwarded_address(chain: list[str], client: str | None) -> None:
    for peer in (PROXY, f"::ffff:{PROXY}", "2001:0db8:00aa::80"):
        seen = PROXIES.seen(peer, "http", forwarded(*chain)).address
        assert seen == client or (client == PROXY and seen == str(parse(peer))), peer


@pytest.mark.parametrize(
    ("proto", "chain", "scheme"),
    [
        ("https", ["198.51.100.4"], "https"),
        ("HTTPS", ["198.51.100.4"], "https"),
        ("http", ["198.51.100.4"], "http"),
        # Several proxies: each adds its own leg, or only the inner one does.
        ("https,http", ["198.51.100.4, 192.0.2.81"], "https"),
        ("https, http", ["198.51.100.4"], "https"),
        ("https,http", [], "https"),
        ("https,https,http", ["198.51.100.4, 192.0.2.81, 192.0.2.82"], "https"),
        ("https", ["198.51.100.4, 192.0.2.81"], "https"),
        ("http,https", ["198.51.100.4, 192.0.2.81"], "http"),
        # What the client wrote before the proxies' entries is not theirs.
        ("https,http,https", ["203.0.113.9, 198.51.100.4, 192.0.2.81"], "http"),
        ("ftp", ["198.51.100.4"], "http"),
        ("https;q=1", ["198.51.100.4"], "http"),
    ],
)
def test_scheme_is_the_clients_own(proto: str, chain: list[str], scheme: str) -> None:
    assert PROXIES.seen(PROXY, "http", forwarded(*chain, proto=proto)).scheme == scheme


@given(v4 | v6, st.lists(st.text(max_size=40), max_size=4), st.text(max_size=20))
def test_forwarded_headers_of_untrusted_peers_are_ignored(
    peer: IPv4Address | IPv6Address, chain: list[str], proto: str
) -> None:
    headers = [(b"x-forwarded-for", entry.encode()) for entry in chain] + [(b"x-forwarded-proto", proto.encode())]
    if str(peer) not in PROXIES:
        assert PROXIES.seen(str(peer), "http", headers) == Seen(str(parse(str(peer))), "http")
    trusted = PROXIES.seen(PROXY, "https", headers)
    assert trusted.scheme in ("http", "https") and (trusted.address is None or parse(trusted.address) is not None)


def test_rfc_7239_forwarded_header_is_ignored() -> None:
    headers = [(b"forwarded", b"for=203.0.113.9;proto=https"), (b"x-real-ip", b"203.0.113.9")]
    assert PROXIES.seen(PROXY, "http", headers) == Seen(PROXY, "http")
