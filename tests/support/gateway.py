"""Debian's nginx as a gateway that asks guests for a certificate, with the very files of deploy/."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from broker.embedded import children

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "records"
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
_MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
{main}
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{behind};
        location / {{ return 200 "$http_x_guestkey_lease $http_x_guestkey_slice"; }}
        location /slow {{ limit_rate 20000; root {folder}; }}
    }}
    include {folder}/mtls.conf;
}}
"""


@dataclass(frozen=True)
class Guest:
    """A key of a guest's own, and the request made with it."""

    key: Key
    request: str

    @property
    def key_pem(self) -> bytes:
        """The private key, as its holder keeps it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def guest(key: Key | None = None, *wishes: x509.ExtensionType, name: str = "guest") -> Guest:
    """Make a signing request, by default for a fresh key on P-256, that asks for nothing."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    for wish in wishes:
        builder = builder.add_extension(wish, critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Guest(key, builder.sign(key, digest).public_bytes(Encoding.PEM).decode())


class Gateway:
    """A running gateway. `refresh` is what its timer does every ten seconds."""

    def __init__(self, folder: Path, broker: str, port: int) -> None:
        self.folder, self.broker, self.port = folder, broker, port
        self.list = folder / "crl.pem"
        self.authority = trustme.CA()
        certificate = self.authority.issue_cert("records.example")
        (folder / "server.key").write_bytes(certificate.private_key_pem.bytes())
        (folder / "server.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
        self._child: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *,
        slice_: str = r'!~ "^sl_[a-z0-9]+:read$"',
        shutdown: str = "2s",
        ocsp: bool = False,
        service: int | None = None,
    ) -> None:
        """Start nginx on the files of deploy/, with paths, ports and slice put in.

        Args:
            service: the port of a service behind that takes WebSockets, in the place of one that says who comes.
        """
        behind, relay = children.free_port(), children.free_port()
        main = (DEPLOY / "nginx/guestkey-main.conf").read_text()
        main = main.replace("worker_shutdown_timeout 20s", f"worker_shutdown_timeout {shutdown}")
        text = (DEPLOY / "nginx/mtls.conf").read_text()
        if ocsp:
            with_ocsp = (DEPLOY / "nginx/mtls-ocsp.conf").read_text()
            asked = "\n".join(re.findall(r"^#     (ssl_ocsp.*)$", with_ocsp, re.MULTILINE))
            text = text.replace("ssl_verify_depth 1;", f"ssl_verify_depth 1;\n{asked}") + with_ocsp
        if service is not None:
            text = re.sub(r"# (proxy_http_version 1.1;|proxy_set_header (?:Upgrade|Connection) .*)", r"\1", text)
        for old, new in {
            "listen 443": f"listen 127.0.0.1:{self.port}",
            "/etc/guestkey": str(self.folder),
            "127.0.0.1:8080": f"127.0.0.1:{service or behind}",
            "/var/lib/nginx": str(self.folder),
            "127.0.0.1:8280": f"127.0.0.1:{relay}",
            "https://guestkey.example": self.broker,
            "Host guestkey.example": f"Host {self.broker.removeprefix('http://')}",
            '!= "sl_example:read"': slice_,
        }.items():
            text = text.replace(old, new)
        (self.folder / "mtls.conf").write_text(text)
        config = self.folder / "nginx.conf"
        config.write_text(_MAIN.format(folder=self.folder, main=main, behind=behind))
        log = self.folder / "error.log"
        self._child = children.start(["/usr/sbin/nginx", "-c", str(config), "-e", str(log)], log=self.folder / "log")
        children.wait_until(self._listens, self._child, seconds=10, name="nginx", log=log)

    def stop(self) -> None:
        """Stop nginx."""
        if self._child is not None:
            children.stop(self._child, signal.SIGTERM)

    def refresh(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run guestkey-crl as the timer does; without a command, it makes nginx reload."""
        if not command:
            # A replica keeps the list it hands on for a second.
            time.sleep(1.1)
        reload = command or ("/usr/sbin/nginx", "-c", f"{self.folder}/nginx.conf", "-s", "reload")
        script = [str(DEPLOY / "gateway/guestkey-crl"), f"{self.broker}/pki", str(self.folder), *reload]
        done = subprocess.run(script, capture_output=True, text=True, timeout=30, check=False)
        # A reload is a signal: the old worker may still take a connection for an instant.
        time.sleep(0.3)
        return done

    def connect(self, certificate: str, key: bytes, *, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """A TLS connection as a guest opens it."""
        context = self.context(certificate, key)
        return self.wrapped(context, session)

    def context(self, certificate: str, key: bytes) -> ssl.SSLContext:
        """A guest's side of TLS, holding a certificate and its key."""
        context = ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())
        with TemporaryDirectory() as folder:
            (Path(folder) / "pem").write_bytes(f"{certificate}\n".encode() + key)
            context.load_cert_chain(Path(folder) / "pem")
        return context

    def wrapped(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """A connection in that context."""
        raw = socket.create_connection(("127.0.0.1", self.port), 5)
        return context.wrap_socket(raw, server_hostname="records.example", session=session)

    def get(self, certificate: str, key: bytes) -> tuple[int, str]:
        """Status and body of one request; 0 where the handshake is refused."""
        try:
            with self.connect(certificate, key) as connection:
                return ask(connection)
        except (ssl.SSLError, OSError):
            return 0, ""

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


def ask(connection: ssl.SSLSocket, path: str = "/", *, more: str = "X-None: 1") -> tuple[int, str]:
    """One request on an open connection; (0, "") where it has been closed."""
    connection.settimeout(10)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: records.example\r\n{more}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < _length(answer):
        chunk = connection.recv(65536)
        if not chunk:
            break
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]), body.decode()) if head else (0, "")


def _length(answer: bytes) -> int:
    found = re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)
    return int(found[1]) if found else 0


class Authority:
    """Somebody else who signs certificates and lists; by its name it could be ours."""

    def __init__(self, name: str = "Guestkey guests") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def certificate(self) -> bytes:
        """Its own certificate."""
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(self.name).issuer_name(self.name).serial_number(1)
        builder = builder.public_key(self.key.public_key()).not_valid_before(now - timedelta(days=2))
        builder = builder.not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def list(self, *serials: int, age: int = 0, good_for: int = 3600) -> bytes:
        """A list made `age` seconds ago."""
        made = datetime.now(UTC) - timedelta(seconds=age)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(made)
        builder = builder.next_update(made + timedelta(seconds=good_for))
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(made).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


@contextmanager
def gateway(broker: str, port: int, ca: str) -> Iterator[Gateway]:
    """A gateway that trusts an authority and has the broker's list, not started yet."""
    with TemporaryDirectory(prefix="guestkey-gateway-") as name:
        folder = Path(name)
        # nginx's workers run as another user when we are root.
        folder.chmod(0o755)
        made = Gateway(folder, broker, port)
        (folder / "guests-ca.pem").write_text(ca)
        first = made.refresh("true")
        assert first.returncode == 0, first.stderr
        try:
            yield made
        finally:
            made.stop()
