"""How guests reach a gateway that asks them for a certificate."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from broker.kinds.values import ConnectionSetting


class X509Connection(BaseModel):
    """A gateway. `pki_url` is where certificates say they can be checked; the portal's own `/pki` if left out."""

    host: str
    port: int = 443
    pki_url: str = ""


def _check(gateways: Mapping[str, X509Connection], public_url: str) -> None:
    for gateway in gateways.values():
        gateway.pki_url = gateway.pki_url or f"{public_url}/pki"
    if len({gateway.pki_url for gateway in gateways.values()}) > 1:
        raise ValueError("certificates name one place, so pki_url is the same for all gateways")


SETTING = ConnectionSetting(X509Connection, "Gateways that ask guests for a certificate, by name.", _check)
