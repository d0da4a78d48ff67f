"""How guests reach a MariaDB server; how the broker reaches it lies in OpenBao."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, model_validator

from broker.base.settings import is_loopback
from broker.kinds.values import ConnectionSetting


class MariadbConnection(BaseModel):
    """A server that holds datasets."""

    host: str
    port: int = 3306
    ssl: Literal["verify", "off"] = "verify"
    ssl_ca: str | None = None

    @model_validator(mode="after")
    def _verified(self) -> Self:
        if self.ssl == "off" and not is_loopback(self.host):
            raise ValueError("TLS is left out on this machine only: set ssl to verify")
        return self


SETTING = ConnectionSetting(MariadbConnection, "MariaDB servers that hold datasets, by name.")
