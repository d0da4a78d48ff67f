"""One object store, in the broker's words: the only importer of botocore. Every call is one try with one deadline.

Speaks S3 and STS as AWS documents them; texts of the store go to the log, never into the errors raised.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from threading import Lock
from typing import Any

import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from botocore.session import Session
from urllib3.exceptions import HTTPError

from broker.base.errors import BackendDown
from broker.base.resilience import Breaker, ConcurrencyLimit
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.s3.binding import S3Binding, partition_of, session_policy

log = structlog.get_logger(__name__)
# Together below the 4 s that issuing may take.
_CONNECT_SECONDS = 1.0
_READ_SECONDS = 2.4
_MISSHAPEN = (AttributeError, KeyError, IndexError, TypeError, ValueError)
# Callers in one store at a time: one that hangs holds no more threads than these.
_PLACES = 8
_making = Lock()


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A long-term key of ours at a store, or a session's; `token` is empty for the former."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """What AssumeRole answered."""

    key: AccessKey
    expires_at: datetime
    name: str


class StoreRefused(Exception):
    """The store answered and said no. `code` is its own word for it; internal, never shown."""

    def __init__(self, code: str, status: int = 0) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class FoundObject:
    """A bucket's policy as text, "" for none, and what the store's clock said then."""

    document: str
    now: datetime


class _Gate:
    """The way to one store: a few callers at a time, and after a run of faults hardly any, so that others go on."""

    def __init__(self) -> None:
        self._limit = ConcurrencyLimit(_PLACES, down)
        self._breaker = Breaker()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """One error type for everything that is no answer, and one for a no."""
        if not self._breaker.admit():
            raise down()
        with self._limit.entered(_CONNECT_SECONDS):
            try:
                with _translated():
                    yield
            except BackendDown:
                self._breaker.note(fault=True)
                raise
            except StoreRefused:
                self._breaker.note(fault=False)
                raise
            self._breaker.note(fault=False)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _refused(error) from error
    except ResponseParserError as error:
        log.warning("s3.nonsense", error=type(error).__name__)
        raise down("What answers is not an object store.") from error
    except (BotoCoreError, HTTPError, OSError) as error:
        log.warning("s3.silent", error=type(error).__name__)
        raise down() from error
    except _MISSHAPEN as error:
        log.warning("s3.misshapen_answer", error=type(error).__name__)
        raise down("What answers is not an object store.") from error


@contextmanager
def _unless(code: str) -> Iterator[None]:
    """Go on where there is nothing to be asked, as the store says by this word for it."""
    try:
        yield
    except ClientError as error:
        if _code(error) != code:
            raise


# Stores are as many as connections in the settings: a handful.
_gates: dict[str, _Gate] = defaultdict(_Gate)


class Store:
    """A store as one key sees it. What asks it raises `StoreRefused` for a no, `BackendDown` for no useful answer.

    Args:
        place: what the settings say of the connection.
    """

    def __init__(self, place: Mapping[str, str], key: AccessKey) -> None:
        self._place = place
        self._key = key
        self._gate = _gates[place.get("endpoint_url") or place["region"]]

    @property
    def partition(self) -> str:
        """The part of AWS its role and buckets are in."""
        return partition_of(self._place["role_arn"])

    @property
    def address(self) -> str:
        """Which store it is, whatever its connections are called: names of buckets are unique in it."""
        return self._place.get("endpoint_url", "aws").lower()

    def assume(self, name: str, policy: str, seconds: int) -> OpenedSession:
        """Open a session of the connection's role under this name, held to this policy.

        Raises:
            StoreRefused: it may not, or the store dislikes policy or lifetime.
        """
        client = self._client("sts", self._place.get("sts_endpoint_url") or self._place.get("endpoint_url"))
        with self._gate.answering():
            answer = client.assume_role(
                RoleArn=self._place["role_arn"], RoleSessionName=name, DurationSeconds=seconds, Policy=policy
            )
            made, who = answer["Credentials"], str(answer["AssumedRoleUser"]["Arn"])
            key = AccessKey(_text(made["AccessKeyId"]), _text(made["SecretAccessKey"]), _text(made["SessionToken"]))
            expires_at = made["Expiration"]
            if not isinstance(expires_at, datetime) or expires_at.tzinfo is None:
                raise ValueError("no time of expiry")
            return OpenedSession(key, expires_at.astimezone(UTC), who.rpartition("/")[2])

    def open(
        self, name: str, binding: S3Binding, action: str, seconds: int, networks: Iterable[str] = ()
    ) -> OpenedSession:
        """Open a session that may do this at a slice's prefix, and nothing else; raises as `assume` does.

        Raises:
            ValueError: its policy would be longer than stores take.
        """
        keys = self._place.get("kms_keys", "").split()
        policy = session_policy(binding, action, networks, partition=self.partition, kms_keys=keys)
        return self.assume(name, policy, seconds)

    def policy(self, bucket: str) -> FoundObject:
        """The bucket's policy."""
        with self._gate.answering():
            try:
                answer = self._s3.get_bucket_policy(Bucket=bucket)
                document = _text(answer["Policy"])
            except ClientError as error:
                if _code(error) != "NoSuchBucketPolicy":
                    raise
                answer, document = error.response, ""
            date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
            return FoundObject(document, parsedate_to_datetime(date).astimezone(UTC))

    def put_policy(self, bucket: str, document: str) -> None:
        """Replace the bucket's policy; an empty one removes it."""
        with self._gate.answering():
            if document:
                self._s3.put_bucket_policy(Bucket=bucket, Policy=document)
                return
            with _unless("NoSuchBucketPolicy"):
                self._s3.delete_bucket_policy(Bucket=bucket)

    def listed(self, bucket: str, prefix: str, most: int = 1000) -> list[str]:
        """The objects under a prefix, at most `most`; folders' own marks are none."""
        with self._gate.answering():
            answer = self._s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=most)
            if str(answer["Name"]) != bucket:
                raise ValueError("another bucket was listed")
            keys = [str(found["Key"]) for found in answer.get("Contents", [])]
            return [key for key in keys if not key.endswith("/")]

    def folders(self, bucket: str, prefix: str, most: int) -> tuple[list[str], bool]:
        """The prefixes one level below another, and whether these are all; asked in at most so many answers."""
        found, more = list[str](), dict[str, str]()
        for _ in range(most):
            with self._gate.answering():
                answer = self._s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/", **more)
                found += [str(below["Prefix"]) for below in answer.get("CommonPrefixes", [])]
                if not answer["IsTruncated"]:
                    return found, True
                more = {"ContinuationToken": _text(answer["NextContinuationToken"])}
        return found, False

    def read_byte(self, bucket: str, key: str) -> None:
        """Read the first byte of an object; an empty one has none.

        Raises:
            StoreRefused: whatever reading it takes, this key may not, or nobody can now.
        """
        with self._gate.answering(), _unless("InvalidRange"):
            body = self._s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"]
            with closing(body):
                body.read()

    def bucket_keys(self, bucket: str) -> list[str]:
        """The KMS keys a bucket encrypts with, as it names them; "" for the one that is the store's own."""
        with self._gate.answering(), _unless("ServerSideEncryptionConfigurationNotFoundError"):
            answer = self._s3.get_bucket_encryption(Bucket=bucket)
            rules = [
                rule.get("ApplyServerSideEncryptionByDefault", {})
                for rule in answer["ServerSideEncryptionConfiguration"]["Rules"]
            ]
            return [str(rule.get("KMSMasterKeyID", "")) for rule in rules if "kms" in str(rule.get("SSEAlgorithm"))]
        return []

    def aborts_uploads(self, bucket: str) -> bool:
        """Whether a rule of a bucket's life cycle aborts uploads in parts that nobody completes, of whatever name."""
        with self._gate.answering(), _unless("NoSuchLifecycleConfiguration"):
            rules = self._s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
            return any(
                rule["Status"] == "Enabled"
                and "AbortIncompleteMultipartUpload" in rule
                and not rule.get("Prefix")
                and rule.get("Filter", {}) in ({}, {"Prefix": ""})
                for rule in rules
            )
        return False

    def may(self, act: Callable[[Any], object]) -> bool:
        """Whether the store lets this key do something with an S3 client."""
        try:
            with self._gate.answering():
                act(self._s3)
        except StoreRefused as refused:
            if refused.status in (401, 403) or refused.code == "AccessDenied":
                return False
            raise
        return True

    @property
    def _s3(self) -> Any:
        return self._client("s3", self._place.get("endpoint_url"))

    def _client(self, service: str, endpoint: str | None) -> Any:
        # Making one reads megabytes of models: clients of the long-term keys are kept, a session's are not.
        make = client_for.__wrapped__ if self._key.token else client_for
        with _making:
            return make(service, endpoint, self._place["region"], self._place.get("ca_file"), self._key)


def key_of(vault: Vault, connection: str, identity: str, *, remembered: bool = False) -> AccessKey:
    """The connection's long-term key of `issuer` or `ender`, from the key store.

    Raises:
        BackendDown: the key store does not answer, or there is none.
    """
    try:
        kept = vault.secret(f"connections/{connection}/s3-{identity}", remembered=remembered)
        return AccessKey(kept["access_key_id"], kept["secret_access_key"])
    except (VaultRefused, KeyError) as error:
        raise down("The object store's key is not known to the key store.") from error


def down(detail: str = "The object store does not answer.") -> BackendDown:
    """The store behind a slice does not answer usefully."""
    return BackendDown(detail, backend="s3", advice="Try again in a minute; the operator finds more in the log.")


@lru_cache(maxsize=64)
def client_for(service: str, endpoint: str | None, region: str, ca_file: str | None, key: AccessKey) -> Any:
    """A client of botocore for a service (`s3`, `sts`) at an address; None: AWS's own."""
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": 1},
        signature_version="s3v4" if service == "s3" else "v4",
        s3={"addressing_style": "path" if endpoint else "auto"},
        # Taken from the environment otherwise, where whoever runs us may have them for other ends.
        proxies={},
        ignore_configured_endpoint_urls=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=16,
    )
    return _session().create_client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        verify=ca_file or True,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        aws_session_token=key.token or None,
        config=config,
    )


@lru_cache(maxsize=1)
def _session() -> Session:
    # At its DEBUG level it writes out requests and answers, keys and sessions included.
    logging.getLogger("botocore").setLevel(logging.INFO)
    nothing = (None, None, os.devnull, None)
    # No profile, file or variable of the account that runs us may lend its keys or its addresses.
    return Session(
        {"profile": (None, None, None, None), "config_file": nothing, "credentials_file": nothing},
        include_builtin_handlers=True,
    )


def _refused(error: ClientError) -> Exception:
    code, status = _code(error), int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "RequestTimeTooSkewed":
        log.error("s3.clock", operation=error.operation_name)
        return down("The object store refuses requests by the clock of this machine.")
    if code == "NotImplemented":
        return StoreRefused(code, status)
    if status >= 500 or status in (0, 429) or code in ("SlowDown", "Throttling", "RequestTimeout"):
        log.warning("s3.fault", code=code[:80], status=status, operation=error.operation_name)
        return down()
    return StoreRefused(code, status)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a part of the answer is missing")
    return value
