"""The embedded object store: the real `weed`, S3 and STS on one port, nothing else of it open to anybody.

SeaweedFS is four servers in one process that trust each other. Between them they speak gRPC with certificates of a
key that only this state folder holds, and their HTTP wants a signature; only S3's own address is for others.
"""

from __future__ import annotations

import base64
import json
import secrets
import signal
from pathlib import Path
from typing import Any

import requests
import trustme

from broker.embedded import children
from broker.kinds.s3.store import AccessKey, client_for

CONNECTION = "objects"
ROLE_ARN = "arn:aws:iam::000000000000:role/guestkey-guest"
REGION = "us-east-1"
_SERVERS = ("master", "volume", "filer")
# Flags of ports that are for SeaweedFS itself: those of gRPC, and of the servers behind S3.
_OWN_PORTS = [f"{server}.port{end}" for server in _SERVERS for end in ("", ".grpc")] + ["s3.port.grpc"]


class SeaweedFS(children.Server):
    """One object store under a state folder."""

    name = "The object store"
    stop_signal = signal.SIGKILL

    def __init__(self, state: Path, port: int) -> None:
        self.state = state
        self.port = port
        self.address = f"http://127.0.0.1:{port}"
        super().__init__(state / "seaweedfs.log")
        self._ports: dict[str, int] = {}

    def launch(self) -> None:
        """Start without waiting."""
        children.require_free(self.port, "the object store")
        for folder in (self.state, self.state / "data", self.state / "tmp"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys = self._keys()
        children.write_private(self.state / "security.toml", self._security())
        children.write_private(self.state / "identities.json", json.dumps(_identities(keys)))
        children.write_private(self.state / "iam.json", json.dumps(_iam(keys["signing"])))
        # The servers behind S3 take whatever is free at this start: nobody else ever speaks to them.
        self._ports = {flag: children.free_port() for flag in _OWN_PORTS}
        self._child = children.start(
            self._command(),
            log=self.log,
            stop_signal=self.stop_signal,
            environment={
                # Seven volumes a bucket otherwise, and a janitor that takes a lock for a cluster there is none of.
                "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
                "WEED_MASTER_MAINTENANCE_SCRIPTS": "",
                "TMPDIR": str(self.state / "tmp"),
                "GOMEMLIMIT": "384MiB",
                "GOGC": "50",
            },
        )

    def stop(self) -> None:
        """Stop it; its state stays.

        Killed, because asked to stop it waits 15 s for streams between its own servers. What it has acknowledged is
        with the kernel by then, and found again.
        """
        super().stop()
        for file in self._sockets():
            file.unlink(missing_ok=True)

    def key(self, identity: str) -> AccessKey:
        """The long-term key of `owner`, `issuer` or `ender`."""
        kept = self._keys()[identity]
        return AccessKey(kept["id"], kept["secret"])

    def client(self, key: AccessKey | None = None) -> Any:
        """An S3 client, the owner's unless another key is given."""
        return client_for("s3", self.address, REGION, None, key or self.key("owner"))

    def setting(self) -> dict[str, Any]:
        """What `GUESTKEY_S3_CONNECTIONS` says of it."""
        return {
            "role_arn": ROLE_ARN,
            "region": REGION,
            "endpoint_url": self.address,
            "ended_by": "aws:username",
            # Seen: 12 ms mostly, 0.9 s at most with every core busy.
            "settles": 1.0,
        }

    def _sockets(self) -> list[Path]:
        """Where it also listens for itself, at a place it does not let choose; left behind when it is killed."""
        named = {flag.partition(".")[0]: port for flag, port in self._ports.items() if flag.endswith(".grpc")}
        return [Path("/tmp") / f"seaweedfs-{server}-grpc-{port}.sock" for server, port in named.items()]  # noqa: S108

    def _healthy(self) -> bool:
        """Whether S3 answers, and the servers behind it have found the disk: S3 answers a moment before."""
        own = str(self.state / "certificate.pem")
        topology = f"https://127.0.0.1:{self._ports['master.port']}/dir/status"
        try:
            if requests.get(f"{self.address}/healthz", timeout=2).status_code != 200:
                return False
            seen = requests.get(topology, cert=(own, str(self.state / "key.pem")), verify=own, timeout=2).json()
            return bool(seen["Topology"]["Max"])
        except (requests.RequestException, KeyError, TypeError, ValueError):
            return False

    def _keys(self) -> dict[str, Any]:
        kept: dict[str, Any] = children.made_once(self.state / "keys.json", _new_keys)
        return kept

    def _security(self) -> str:
        certificate, key = self.state / "certificate.pem", self.state / "key.pem"
        if not certificate.exists():
            _certify(certificate, key)
        pair = f"cert = {json.dumps(str(certificate))}\nkey = {json.dumps(str(key))}\n"
        ca = f"ca = {json.dumps(str(certificate))}\n"
        wanted = self._keys()["toml"]
        signed = {
            "jwt.signing": "write",
            "jwt.signing.read": "read",
            "jwt.filer_signing": "filer",
            "jwt.filer_signing.read": "filer_read",
            "s3.sse": "sse",
        }
        text = "".join(f'[{section}]\nkey = "{wanted[name]}"\n' for section, name in signed.items())
        text += "[filer.expose_directory_metadata]\nenabled = false\n"
        text += "[grpc]\n" + ca + "".join(f"[grpc.{part}]\n{pair}" for part in (*_SERVERS, "s3", "client"))
        # The master hands out signatures to whoever asks: only to those with the certificate.
        return text + f"[https.master]\n{pair}{ca}"

    def _command(self) -> list[str | Path]:
        flags: dict[str, object] = {
            "dir": self.state / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            # One master elects itself: with the default it would think about that for up to 20 s after a restart.
            "master.electionTimeout": "300ms",
            "master.heartbeatInterval": "100ms",
            "master.volumeSizeLimitMB": 64,
            "master.telemetry": "false",
            "volume.max": 100,
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.localSocket": self.state / "filer.sock",
            "s3": "true",
            "s3.config": self.state / "identities.json",
            "s3.iam.config": self.state / "iam.json",
            "s3.localSocket": self.state / "s3.sock",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.autoCreateBucket": "false",
            # IAM answers on the same port, in part to any session; without it there would be no STS.
            "s3.iam.readOnly": "true",
            "s3.port": self.port,
            **self._ports,
        }
        command: list[str | Path] = [children.program("weed", "SeaweedFS"), f"-config_dir={self.state}"]
        return [*command, "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in flags.items())]


def _new_keys() -> dict[str, Any]:
    made: dict[str, Any] = {
        name: {"id": f"GK{secrets.token_hex(9).upper()}", "secret": secrets.token_urlsafe(30)}
        for name in ("owner", "issuer", "ender")
    }
    made["signing"] = base64.b64encode(secrets.token_bytes(32)).decode()
    made["toml"] = {name: secrets.token_hex(32) for name in ("write", "read", "filer", "filer_read", "sse")}
    return made


def _identities(keys: dict[str, Any]) -> dict[str, Any]:
    """Who has a long-term key: the owner everything, the issuer nothing but the role, the ender buckets' policies."""

    def identity(name: str, actions: list[str], policies: list[str]) -> dict[str, Any]:
        credential = {"accessKey": keys[name]["id"], "secretKey": keys[name]["secret"]}
        return {"name": name, "credentials": [credential], "actions": actions, "policyNames": policies}

    return {
        "identities": [
            identity("owner", ["Admin", "Read", "Write", "List", "Tagging"], []),
            identity("issuer", [], []),
            identity("ender", [], ["guestkey-ender"]),
        ]
    }


def _iam(signing: str) -> dict[str, Any]:
    """The role of guests and what it and the ender may do, with this installation's key for sessions."""
    iam: dict[str, Any] = json.loads(Path(__file__).with_name("seaweedfs_iam.json").read_text())
    iam["sts"]["signingKey"] = signing
    return iam


def _certify(certificate: Path, key: Path) -> None:
    """One certificate for all four servers, of an authority nobody has the key of: who has its key is one of them."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1", "localhost")
    children.write_private(key, own.private_key_pem.bytes())
    certificate.write_bytes(own.cert_chain_pems[0].bytes() + authority.cert_pem.bytes())
