"""The embedded object store behind S3: four servers that answer to each other and to nobody else on the machine."""

from __future__ import annotations

import socket
import ssl
import subprocess

import pytest
import requests

from broker.embedded.seaweedfs import SeaweedFS
from tests.support.data import BUCKET
from tests.support.world import World


@pytest.fixture
def store(world: World) -> SeaweedFS:
    """The running store."""
    return world.stack.store


def test_server_credentials_are_readable_only_by_this_user(store: SeaweedFS) -> None:
    for name in ("keys.json", "key.pem", "security.toml", "identities.json", "iam.json"):
        assert (store.state / name).stat().st_mode & 0o077 == 0, name
    assert store.state.stat().st_mode & 0o077 == 0


def test_seaweedfs_listens_only_on_localhost(store: SeaweedFS) -> None:
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    own = [line.split()[3] for line in listening.splitlines() if f"pid={store.pid}," in line]
    assert len(own) >= 8
    assert {address.rpartition(":")[0] for address in own} == {"127.0.0.1"}


def test_internal_servers_refuse_unauthenticated_requests(store: SeaweedFS) -> None:
    filer, volume, master = (store._ports[f"{server}.port"] for server in ("filer", "volume", "master"))
    for path in ("", "buckets/clinic/secret.json", "buckets/", "etc/"):
        assert requests.get(f"http://127.0.0.1:{filer}/{path}", timeout=5).status_code == 401, path
    assert requests.post(f"http://127.0.0.1:{filer}/buckets/clinic/x", data=b"x", timeout=5).status_code == 401
    assert requests.get(f"http://127.0.0.1:{volume}/1,01637037d6", timeout=5).status_code == 401
    # The master signs for the others: plain HTTP is refused, and TLS without the certificate too.
    assert requests.get(f"http://127.0.0.1:{master}/dir/assign", timeout=5).status_code == 400
    own = str(store.state / "certificate.pem")
    with pytest.raises((requests.exceptions.SSLError, requests.exceptions.ConnectionError)):
        requests.get(f"https://127.0.0.1:{master}/dir/assign", verify=own, timeout=5)


def greeted(port: int, context: ssl.SSLContext) -> bytes:
    """What a gRPC server says to a greeting, if anything."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as session,
        ):
            session.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            return session.recv(1024)
    except (ssl.SSLError, ConnectionError):
        return b""


@pytest.mark.parametrize("server", ["s3", "master", "volume", "filer"])
def test_grpc_requires_the_client_certificate(store: SeaweedFS, server: str) -> None:
    port = store._ports[f"{server}.port.grpc"]
    context = ssl.create_default_context(cafile=str(store.state / "certificate.pem"))
    context.set_alpn_protocols(["h2"])
    assert greeted(port, context) == b""
    context.load_cert_chain(store.state / "certificate.pem", store.state / "key.pem")
    assert greeted(port, context), "with it, they do"


def test_objects_survive_a_kill(store: SeaweedFS) -> None:
    client = store.client()
    client.put_object(Bucket=BUCKET, Key="kept/a", Body=b"x" * 100_000)
    store.stop()
    store.start()
    assert store.client().get_object(Bucket=BUCKET, Key="kept/a")["Body"].read() == b"x" * 100_000
