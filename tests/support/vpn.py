"""Debian's OpenVPN on the lines of deploy/openvpn, one guest at a time and `dev null`: no network is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.embedded import children
from broker.runtime.parts import Parts
from tests.support.certificates import GUEST
from tests.support.gateway import DEPLOY, NAME, Gateway, gateway
from tests.support.waiting import until

VERIFY = DEPLOY / "openvpn/guestkey-vpn-verify"
END = DEPLOY / "openvpn/guestkey-vpn-end"
IN, REFUSED = "Peer Connection Initiated", "TLS handshake failed"
_PROGRAM = "/usr/sbin/openvpn"
_BOTH = ["--dev", "null", "--verb", "3", "--connect-retry-max", "1"]


@contextmanager
def vpn_folder(parts: Parts, broker: str) -> Iterator[Gateway]:
    """A folder as guestkey-crl keeps it, and the server's own certificate."""
    with gateway(broker, 0, parts.vault.ca_certificate()) as made:
        certificate = made.authority.issue_cert("vpn.example", common_name="vpn.example")
        (made.folder / "server.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
        (made.folder / "server.key").write_bytes(certificate.private_key_pem.bytes())
        (made.folder / "server.key").chmod(0o600)
        (made.folder / "authority.pem").write_bytes(made.authority.cert_pem.bytes())
        (made.folder / "notes").mkdir(mode=0o700)
        yield made


@dataclass(frozen=True)
class Server:
    """A running server."""

    folder: Path
    port: int

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "server.log").read_text()

    def says(self, *words: str) -> None:
        """Wait until it has written one of them."""
        until(lambda: any(word in self.log for word in words), seconds=30, what=f"{words} in\n{self.log}\n")

    @contextmanager
    def guest(self, pem: str, *options: str) -> Iterator[None]:
        """Somebody who connects with a certificate."""
        (self.folder / "guest.pem").write_text(pem)
        (self.folder / "guest.key").write_bytes(GUEST.key_pem)
        (self.folder / "guest.key").chmod(0o600)
        ca, cert, key = (f"{self.folder}/{name}" for name in ("authority.pem", "guest.pem", "guest.key"))
        mine = ["--ca", ca, "--cert", cert, "--key", key, "--tls-client", "--data-ciphers", "AES-256-GCM", *options]
        there = ["--proto", "tcp-client", "--remote", "127.0.0.1", str(self.port)]
        client = children.start([_PROGRAM, *_BOTH, *mine, *there], log=self.folder / "guest.log")
        try:
            yield
        finally:
            children.stop(client)


@contextmanager
def vpn_server(vpn: Gateway, slice_: str, changed: Callable[[str], str] = str) -> Iterator[Server]:
    """OpenVPN for guests of these slices; `changed` has the last word on the shipped lines."""
    folder, port = vpn.folder, children.free_port()
    lines = (DEPLOY / "openvpn/guestkey.conf").read_text()
    for old, new in {
        "/etc/guestkey": str(folder),
        "/usr/local/lib/guestkey/guestkey-vpn-verify": str(VERIFY),
        "/run/guestkey-vpn/server.sock": str(folder / "server.sock"),
        "/run/guestkey-vpn vpn sl_example:read": f"{folder}/notes {NAME} {slice_}",
    }.items():
        assert old in lines
        lines = lines.replace(old, new)
    (folder / "server.conf").write_text(changed(lines))
    own = ["--cert", f"{folder}/server.pem", "--key", f"{folder}/server.key", "--tls-server"]
    listen = ["--proto", "tcp-server", "--local", "127.0.0.1", "--port", str(port), "--config", f"{folder}/server.conf"]
    log = folder / "server.log"
    log.unlink(missing_ok=True)
    child = children.start([_PROGRAM, *_BOTH, *own, *listen], log=log)
    try:
        made = Server(folder, port)
        made.says("Listening for incoming TCP connection")
        yield made
    finally:
        children.stop(child)


def connects(vpn: Gateway, pem: str, slice_: str) -> bool:
    """Whether a TLS session of OpenVPN comes about, seen at the server."""
    with vpn_server(vpn, slice_) as server, server.guest(pem):
        server.says(IN, REFUSED)
        return IN in server.log
