"""How guests and the worker reach an SFTP host."""

from __future__ import annotations

from pydantic import BaseModel, Field

from broker.kinds.values import ConnectionSetting


class SshConnection(BaseModel):
    """A host that holds datasets; `host_key` is its public key, `<type> <base64>`."""

    host: str = Field(pattern=r"^[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252}$")
    port: int = Field(default=22, ge=1, le=65535)
    host_key: str = Field(pattern=r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,2}$")


SETTING = ConnectionSetting(SshConnection, "SFTP hosts that hold datasets, by name.")
