"""Every `GUESTKEY_*` setting. Secrets have no default; durations are seconds unless the name says otherwise.

`GUESTKEY_<KIND>_CONNECTIONS` come from the kinds: `broker.kinds.settings` adds them. `docs/configuration.md` lists them
all; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parseaddr
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    FilePath,
    HttpUrl,
    PostgresDsn,
    Secret,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.base.addresses import parse_network


class BaoIdentity(BaseModel):
    """An AppRole login of the broker in OpenBao. The secret id is read from a file at each log-in."""

    role_id: str
    secret_id_file: Path


def is_loopback(host: str) -> bool:
    """Whether a host is this very machine, on which no other server can pose as it."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def said(connection: BaseModel) -> dict[str, str]:
    """What is set of a connection, as kinds are told it: texts, lists of them with a space between."""
    found = connection.model_dump(exclude_none=True)
    return {key: " ".join(value) if isinstance(value, tuple) else str(value) for key, value in found.items()}


class Settings(BaseSettings):
    """The configuration of one process, from `GUESTKEY_*` variables and an optional file of them."""

    model_config = SettingsConfigDict(env_prefix="GUESTKEY_", env_nested_delimiter="__", extra="ignore")

    public_url: HttpUrl = Field(description="Where people reach the portal; also the OAuth issuer.")
    database_url: Secret[PostgresDsn] = Field(description="The broker's records, as the application role.")
    owner_database_url: Secret[PostgresDsn] | None = Field(
        default=None, description="The same database as its owner; for `guestkey migrate` only."
    )
    database_pool_size: int = Field(default=20, ge=2, le=200, description="Connections a process keeps open.")
    database_timeout: float = Field(
        default=2.0, gt=0, le=30, description="Longest wait for a connection, lock or statement."
    )

    bao_addr: HttpUrl = Field(description="OpenBao's or Vault's address.")
    bao_ca_file: FilePath | None = Field(default=None, description="CA certificate of OpenBao's TLS listener.")
    bao_timeout: float = Field(default=3.5, gt=0, le=30, description="Longest wait for one OpenBao answer.")
    bao_concurrency: int = Field(default=16, ge=1, le=256, description="OpenBao calls in flight per process.")
    bao_issuer: BaoIdentity | None = Field(default=None, description="Web: mints and reads credentials.")
    bao_ender: BaoIdentity | None = Field(default=None, description="Worker: revokes, lists, sweeps.")
    bao_setup: BaoIdentity | None = Field(default=None, description="Worker: registers slices.")

    session_idle: int = Field(default=1800, ge=60, description="A session ends after this many seconds without use.")
    session_lifetime: int = Field(
        default=28800, ge=300, description="A session ends after this many seconds, used or not."
    )
    api_token_lifetime: int = Field(default=28800, ge=300, le=28800, description="Lifetime of a command line's token.")
    login_max_age: int = Field(default=600, ge=60, description="Oldest sign-in at the provider accepted.")
    factor_max_failures: int = Field(default=5, ge=1, le=20, description="Wrong codes before a lockout.")
    factor_lockout: int = Field(default=900, ge=1, description="How long a lockout lasts.")
    invitation_lifetime: int = Field(default=72 * 3600, ge=300, description="Lifetime of an invitation link.")
    request_lifetime: int = Field(default=14 * 86400, ge=3600, description="When an undecided request lapses.")
    proposal_lifetime: int = Field(default=86400, ge=300, description="When an undecided proposal lapses.")

    max_live_leases: int = Field(default=5, ge=1, le=1000, description="Live leases per grant and person.")
    issue_deadline: float = Field(default=4.0, gt=0, le=30, description="Longest time for issuing at a backend.")
    sweep_interval: float = Field(default=5.0, gt=0, description="Pause between sweeps of the worker.")
    redecide_interval: float = Field(default=20.0, gt=0, le=60, description="Pause between re-decisions of leases.")

    checkpoint_folder: Path | None = Field(
        default=None, description="Where signed checkpoints of the log are written too; best on another machine's disk."
    )

    smtp_host: str | None = Field(
        default=None, description="Mail server for notices; without one they are only in the portal."
    )
    smtp_port: int = Field(default=587, ge=1, le=65535, description="Its port.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is encrypted; the certificate is always checked."
    )
    smtp_username: str | None = Field(default=None, description="Log-in at the mail server.")
    smtp_password: SecretStr | None = Field(default=None, description="Its password.")
    smtp_from: str | None = Field(default=None, description="Sender of mails: an address, or `Name <address>`.")
    smtp_ca_file: FilePath | None = Field(default=None, description="CA certificate of the mail server.")
    smtp_timeout: float = Field(default=10.0, gt=0, le=30, description="Longest time for one mail.")
    notice_timeout: float = Field(default=10.0, gt=0, le=30, description="Longest time for one webhook or chat call.")
    notice_ca_file: FilePath | None = Field(
        default=None, description="CA certificate of webhooks with one of their own."
    )
    notice_networks: list[IPv4Network | IPv6Network] = Field(
        default_factory=list, description="Inner networks that webhooks may point into, also without TLS."
    )

    sign_in_networks: list[IPv4Network | IPv6Network] = Field(
        default_factory=list, description="Inner networks that identity providers may be in."
    )
    sign_in_ca_file: FilePath | None = Field(
        default=None, description="CA certificate of identity providers with one of their own."
    )

    trusted_proxies: list[IPv4Network | IPv6Network] = Field(
        default_factory=list, description="Addresses whose X-Forwarded-* headers are trusted."
    )
    body_limit: int = Field(default=256 * 1024, ge=1024, description="Longest request body, in bytes.")
    rate_limit_per_minute: int = Field(default=600, ge=1, description="Requests per caller and minute.")
    rate_limit_anonymous_per_minute: int = Field(
        default=120, ge=1, description="Requests per address and minute without a caller."
    )
    metrics_token: SecretStr | None = Field(default=None, description="Bearer token for /metrics; none: loopback only.")
    log_level: str = Field(default="INFO", description="Least severe level logged.")

    def connections(self, kind: str) -> dict[str, Any]:
        """Where slices of a kind can live, by name, as its `connection.py` says; a kind without that has none."""
        found: dict[str, Any] = getattr(self, f"{kind}_connections", {})
        return found

    def place(self, kind: str, binding: Mapping[str, Any]) -> dict[str, str]:
        """What is set of the connection a slice of a kind is bound to; nothing if it has none, or an unknown one."""
        found = self.connections(kind).get(str(binding.get("connection")))
        return {} if found is None else said(found)

    @field_validator("trusted_proxies")
    @classmethod
    def _not_everybody(cls, networks: list[IPv4Network | IPv6Network]) -> list[IPv4Network | IPv6Network]:
        meant = [parse_network(str(network)) for network in networks]
        if any(network.prefixlen == 0 for network in meant):
            raise ValueError("a network of every address would let anybody name the address they come from")
        return meant

    @field_validator("smtp_from")
    @classmethod
    def _sender(cls, sender: str | None) -> str | None:
        if sender is not None and "@" not in parseaddr(sender)[1]:
            raise ValueError("this is no address")
        return sender

    @model_validator(mode="after")
    def _mail(self) -> Self:
        if self.smtp_host is not None and self.smtp_from is None:
            raise ValueError("GUESTKEY_SMTP_HOST needs GUESTKEY_SMTP_FROM beside it")
        if self.smtp_security == "none" and self.smtp_password is not None:
            raise ValueError("GUESTKEY_SMTP_PASSWORD is not sent without TLS: set GUESTKEY_SMTP_SECURITY")
        return self
