"""Every `GUESTKEY_*` setting. Secrets have no default; durations are seconds unless the name says otherwise.

`docs/configuration.md` lists them all; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parseaddr
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

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


class PostgresConnection(BaseModel):
    """A database that holds datasets, as guests reach it; how the broker reaches it lies in OpenBao."""

    host: str
    port: int = 5432
    dbname: str
    sslmode: str = "verify-full"
    sslrootcert: str | None = None


def is_loopback(host: str) -> bool:
    """Whether a host is this very machine, on which no other server can pose as it."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class MariadbConnection(BaseModel):
    """A MariaDB server that holds datasets, as guests reach it; how the broker reaches it lies in OpenBao."""

    host: str
    port: int = 3306
    ssl: Literal["verify", "off"] = "verify"
    ssl_ca: str | None = None

    @model_validator(mode="after")
    def _verified(self) -> Self:
        if self.ssl == "off" and not is_loopback(self.host):
            raise ValueError("TLS is left out on this machine only: set ssl to verify")
        return self


class X509Connection(BaseModel):
    """A gateway that asks guests for a certificate, as they reach it.

    `pki_url` is where certificates say they can be checked; the portal's own `/pki` if left out.
    """

    host: str
    port: int = 443
    pki_url: str = ""


class SshConnection(BaseModel):
    """An SFTP host, as guests and the worker reach it; `host_key` is its public key, `<type> <base64>`."""

    host: str = Field(pattern=r"^[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252}$")
    port: int = Field(default=22, ge=1, le=65535)
    host_key: str = Field(pattern=r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,2}$")


class S3Connection(BaseModel):
    """An object store that holds datasets. Its long-term keys lie in OpenBao, never here.

    Durations are seconds. `ended_by` is the condition key by which a bucket's policy can refuse one session there;
    `guestkey connect-backend s3` finds out which, and prints all of this.
    """

    role_arn: str = Field(pattern=r"^arn:aws[a-z-]*:iam::[0-9]*:role/[\w+=,.@/-]{1,128}$")
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]{1,32}$")
    endpoint_url: str | None = None
    sts_endpoint_url: str | None = None
    longest_session: int = Field(default=3600, ge=900, le=43200)
    ended_by: Literal["aws:userid", "aws:username", "nothing"] = "nothing"
    settles: float = Field(default=120.0, ge=0, le=900)
    ca_file: Path | None = None
    # Keys that its buckets are encrypted with: at AWS a session needs a right to them, or reads nothing.
    kms_keys: tuple[Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]*:key/[\w-]+$")], ...] = ()

    @field_validator("endpoint_url", "sts_endpoint_url")
    @classmethod
    def _encrypted(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("this is no address of an object store")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("an object store on another machine is reached by https only")
        return url.rstrip("/")


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
    database_timeout: float = Field(default=2.0, gt=0, le=30, description="Wait for a connection, lock or statement.")

    bao_addr: HttpUrl = Field(description="OpenBao's or Vault's address.")
    bao_ca_file: FilePath | None = Field(default=None, description="CA certificate of OpenBao's TLS listener.")
    bao_timeout: float = Field(default=3.5, gt=0, le=30, description="Longest wait for one OpenBao answer.")
    bao_concurrency: int = Field(default=16, ge=1, le=256, description="OpenBao calls in flight per process.")
    bao_issuer: BaoIdentity | None = Field(default=None, description="Web: mints and reads credentials.")
    bao_ender: BaoIdentity | None = Field(default=None, description="Worker: revokes, lists, sweeps.")
    bao_setup: BaoIdentity | None = Field(default=None, description="Worker: registers slices.")

    postgres_connections: dict[str, PostgresConnection] = Field(
        default_factory=dict, description="Databases that hold datasets, by name."
    )
    mariadb_connections: dict[str, MariadbConnection] = Field(
        default_factory=dict, description="MariaDB servers that hold datasets, by name."
    )
    x509_connections: dict[str, X509Connection] = Field(
        default_factory=dict, description="Gateways that ask guests for a certificate, by name."
    )
    ssh_connections: dict[str, SshConnection] = Field(
        default_factory=dict, description="SFTP hosts that hold datasets, by name."
    )

    s3_connections: dict[str, S3Connection] = Field(
        default_factory=dict, description="Object stores that hold datasets, by name."
    )

    session_idle: int = Field(default=1800, ge=60, description="A session ends after this long unused.")
    session_lifetime: int = Field(default=28800, ge=300, description="A session ends after this long, used or not.")
    api_token_lifetime: int = Field(default=28800, ge=300, le=28800, description="A command line's token.")
    login_max_age: int = Field(default=600, ge=60, description="Oldest sign-in at the provider accepted.")
    factor_max_failures: int = Field(default=5, ge=1, le=20, description="Wrong codes before a lockout.")
    factor_lockout: int = Field(default=900, ge=1, description="How long a lockout lasts.")
    invitation_lifetime: int = Field(default=72 * 3600, ge=300, description="A joining link's life.")
    request_lifetime: int = Field(default=14 * 86400, ge=3600, description="An undecided request lapses.")
    proposal_lifetime: int = Field(default=86400, ge=300, description="An act waiting for a second person lapses.")

    max_live_leases: int = Field(default=5, ge=1, le=1000, description="Live leases per grant and person.")
    issue_deadline: float = Field(default=4.0, gt=0, le=30, description="Longest time for issuing at a backend.")
    sweep_interval: float = Field(default=5.0, gt=0, description="Pause between sweeps of the worker.")
    redecide_interval: float = Field(default=20.0, gt=0, le=60, description="Pause between re-decisions of leases.")

    checkpoint_folder: Path | None = Field(
        default=None, description="Where signed checkpoints of the log are written too; best on another machine's disk."
    )

    smtp_host: str | None = Field(default=None, description="Mail server for notices; none: they stay in the portal.")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="Its port.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is encrypted; the certificate is always checked."
    )
    smtp_username: str | None = Field(default=None, description="Log-in at the mail server.")
    smtp_password: SecretStr | None = Field(default=None, description="Its password.")
    smtp_from: str | None = Field(default=None, description="Whom mails come from: an address, or `Name <address>`.")
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
        default_factory=list, description="Inner networks that identity providers may lie in."
    )
    sign_in_ca_file: FilePath | None = Field(
        default=None, description="CA certificate of identity providers with one of their own."
    )

    trusted_proxies: list[IPv4Network | IPv6Network] = Field(
        default_factory=list, description="Addresses whose X-Forwarded-* headers are believed."
    )
    body_limit: int = Field(default=256 * 1024, ge=1024, description="Longest request body, in bytes.")
    rate_limit_per_minute: int = Field(default=600, ge=1, description="Requests per caller and minute.")
    rate_limit_anonymous_per_minute: int = Field(default=120, ge=1, description="The same without a caller.")
    metrics_token: SecretStr | None = Field(default=None, description="Bearer token for /metrics; none: loopback only.")
    log_level: str = Field(default="INFO", description="Least severe level logged.")

    def connections(self, kind: str) -> Mapping[str, BaseModel]:
        """Where slices of a kind can live, by name; a kind without `GUESTKEY_<KIND>_CONNECTIONS` has none."""
        found: Mapping[str, BaseModel] = getattr(self, f"{kind}_connections", {})
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
    def _checked_at_ours(self) -> Self:
        for gateway in self.x509_connections.values():
            gateway.pki_url = gateway.pki_url or f"{str(self.public_url).rstrip('/')}/pki"
        if len({gateway.pki_url for gateway in self.x509_connections.values()}) > 1:
            raise ValueError("x509_connections: certificates name one place, so pki_url is the same for all gateways")
        return self

    @model_validator(mode="after")
    def _mail(self) -> Self:
        if self.smtp_host is not None and self.smtp_from is None:
            raise ValueError("GUESTKEY_SMTP_HOST needs GUESTKEY_SMTP_FROM beside it")
        if self.smtp_security == "none" and self.smtp_password is not None:
            raise ValueError("GUESTKEY_SMTP_PASSWORD is not sent without TLS: set GUESTKEY_SMTP_SECURITY")
        return self
