"""Kind `s3`: a session of an object store (STS AssumeRole) for exactly one prefix and action.

The session's name is our handle; an inline session policy holds it to the slice. OpenBao has no part in it but to
keep the long-term keys: one that may only open sessions, one that may only read and write buckets' policies. A prefix
is tried before it becomes a slice: as a guest would, and whether anything else would open with it.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import structlog

from broker.base.errors import BackendDown, Invalid
from broker.keystore.vault import ChildToken, Vault
from broker.kinds import authority
from broker.kinds.base import Kind
from broker.kinds.s3.binding import GROUP_SECONDS, Denial, S3Binding, lapses, listing_policy, partition_of, with_denied
from broker.kinds.s3.ending import LET_IN, SKEW, BucketPolicy, Outcome, deny_sessions
from broker.kinds.s3.store import AccessKey, OpenedSession, Store, StoreRefused, down, key_of
from broker.kinds.values import (
    BindingField,
    BoundSlice,
    Connects,
    Ending,
    Exposed,
    Issued,
    LeaseToEnd,
    LeaseToIssue,
    Use,
)

log = structlog.get_logger(__name__)
# A session is over so long before its lease, where it can be that short: then nothing is left to refuse when the lease
# expires. Opening it takes up to 4 s, and the store's clock counts only 5 s later.
_BEFORE_SECONDS = 10
# What AWS and SeaweedFS open at the least, in seconds.
SHORTEST_SESSION = 900
# Objects counted when a slice is registered; beyond that the size reads as unknown.
_COUNTED = 1000
# Answers of a thousand names in which a prefix of another spelling is looked for, at each level.
_PAGES = 20
# Of one object alone: it lies in an archive, or was deleted just now.
_NOT_NOW = ("InvalidObjectState", "NoSuchKey")


class S3Kind(Kind):
    """See `broker.kinds.base.Kind`."""

    name = "s3"
    position = 30
    connects = Connects("object store", "a prefix of a bucket", asked=False)
    example: ClassVar[Mapping[str, Any] | None] = {
        "name": "labels",
        "kind": "s3",
        "actions": ["read", "write"],
        "binding": {"connection": "objects", "bucket": "labelling", "prefix": "march/labels/"},
    }
    binding_fields = (
        BindingField("bucket", "Bucket", "The bucket's own name, not an alias."),
        BindingField(
            "prefix",
            "Prefix",
            "What the names of all its objects begin with, such as trials/images/. It must end with /."
            " Guests who can write can replace objects, but not delete them.",
        ),
    )
    ending = Ending(
        how="The bucket's policy refuses the session by its name and is read back. A store applies it within a second"
        " or two (SeaweedFS) or within minutes (AWS); the lease says until when it is exposed. A session lasts at least"
        " 15 minutes; a store that cannot refuse one accepts it to its own end. A store checks each request once: a"
        " download or an upload in one piece that began before may still finish.",
        new_sessions=5,
        open_sessions=5,
        worst_case=SHORTEST_SESSION,
        remembered=SHORTEST_SESSION + GROUP_SECONDS,
    )
    use = Use(
        about="Temporary keys for S3, for one prefix of one bucket.",
        secrets=frozenset({"secret_access_key", "session_token"}),
        command="guestkey connect {dataset} --slice {slice}",
        command_says="Gets a new credential, lists the objects with the AWS command line, and ends the credential. No"
        " secret on the screen. Says how to copy.",
        # Who only writes sees nothing that could be listed.
        to_write="guestkey run {dataset} --slice {slice} --kind s3 --action write -- YOUR-TOOL",
    )

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Kind.check_binding`."""
        return S3Binding.parse(binding).canonical()

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """The AWS command line, which reads the keys from its own file."""
        at = f" --endpoint-url {values['endpoint_url']}" if values.get("endpoint_url") else ""
        if authority.NAME in values:
            at += f" --ca-bundle {authority.FILE}"
        says = "Put the three keys into a profile of ~/.aws/credentials that only you can read, here named guest."
        if authority.NAME in values:
            says += f" Save the value ca_pem as {authority.FILE}, and be in its folder."
        where = f"s3://{values['bucket']}/{values['prefix']}"
        # A prefix may hold what a shell would take for a command.
        return says, f"aws --profile guest --region {values['region']}{at} s3 ls {shlex.quote(where)}"

    def register(self, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        """Open a session as a guest would and try it: the prefix must open, and nothing beside it.

        Returns how many objects lie there; None where they are more than a thousand.
        """
        binding = S3Binding.parse(bound.binding)
        if not bound.place:
            raise Invalid(
                f"No object store named {binding.connection} is connected.",
                field="/binding/connection",
                advice="Ask the operator to run: guestkey connect-backend s3",
            )
        issuer = key_of(setup, binding.connection, "issuer")
        return check_prefix(bound.place, issuer, binding, f"register-{slice_id.replace('_', '-')}")

    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Open the session. It is kept nowhere; of it we remember until when it would live."""
        binding, place = S3Binding.parse(lease.binding), _known(lease.place)
        seconds = max(SHORTEST_SESSION, min(lease.lifetime - _BEFORE_SECONDS, int(place["longest_session"])))
        store = Store(place, key_of(vault, binding.connection, "issuer"))
        try:
            opened = store.open(lease.handle, binding, lease.action, seconds, lease.networks)
        except (StoreRefused, ValueError) as error:
            log.warning("s3.issue_refused", lease=lease.id, error=str(error))
            raise down("The object store refused to open a session.") from error
        self._check(opened, lease, seconds)
        values = {
            "access_key_id": opened.key.access_key_id,
            "secret_access_key": opened.key.secret_access_key,
            "session_token": opened.key.token,
            "region": place["region"],
            "bucket": binding.bucket,
            "prefix": binding.prefix,
            "connection": binding.connection,
            "expires_at": min(lease.expires_at.astimezone(UTC), opened.expires_at).isoformat(),
        }
        if place.get("endpoint_url"):
            values["endpoint_url"] = place["endpoint_url"]
        if certificates := authority.of_file(place.get("ca_file")):
            values[authority.NAME] = certificates
        return Issued(values=values, backend_lease_id=str(math.ceil(opened.expires_at.timestamp())))

    @staticmethod
    def _check(opened: OpenedSession, lease: LeaseToIssue, seconds: int) -> None:
        """Hand out nothing that could not be ended: a session of another name, or one that lives longer than asked."""
        longest = lease.issued_at + timedelta(seconds=seconds + SHORTEST_SESSION)
        if opened.name != lease.handle or not lease.issued_at < opened.expires_at <= longest:
            log.error("s3.unexpected_session", lease=lease.id)
            raise down("The object store opened another session than asked for.")

    def end_many(self, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, Outcome]:
        """Refuse the sessions in one writing of each bucket's policy, and read it: only what it says there counts."""
        outcomes: dict[str, Outcome] = {}
        policies: dict[tuple[str, str], tuple[BucketPolicy, dict[str, datetime]]] = {}
        for lease in leases:
            try:
                binding, place, until = S3Binding.parse(lease.binding), _known(lease.place), _until(lease)
                if place["ended_by"] == "nothing":
                    # Such a store cannot refuse a session: it is gone past its own end for whatever clock they have.
                    if lease.now is None or lease.now < until + SKEW:
                        raise Exposed(until + SKEW, "This store has no means to end a session before its own end.")
                    outcomes[lease.id] = "s3: the session is past its own end" + LET_IN
                    continue
                where = (binding.connection, binding.bucket)
                if where not in policies:
                    store = Store(place, key_of(vault, binding.connection, "ender", remembered=True))
                    settles = float(place["settles"])
                    policies[where] = (BucketPolicy(store, vault, *where, place["ended_by"], settles), {})
                policies[where][1][lease.handle] = until
            except (BackendDown, Exposed) as error:
                outcomes[lease.id] = error
        denied = deny_sessions(list(policies.values()))
        return outcomes | {lease.id: denied[lease.handle] for lease in leases if lease.handle in denied}

    def by_hand(self, lease: LeaseToEnd) -> str:
        """The statement to add to the bucket's policy."""
        key = lease.place.get("ended_by", "nothing")
        if key == "nothing":
            return ""
        bucket = str(lease.binding["bucket"])
        denied = {lease.handle: Denial(lapses(_until(lease).timestamp()))}
        partition = partition_of(str(lease.place["role_arn"]))
        statement = json.loads(with_denied("", bucket, key, denied, partition=partition))["Statement"][0]
        return f"aws s3api put-bucket-policy --bucket {bucket}, with this statement added: {json.dumps(statement)}"


def _until(lease: LeaseToEnd) -> datetime:
    """When the session dies by itself; where its opening was never recorded, the latest that it could have been."""
    if lease.backend_lease_id:
        return datetime.fromtimestamp(int(lease.backend_lease_id), UTC)
    if lease.expires_at is None:
        raise down("Only the name of this session is known.")
    return lease.expires_at.astimezone(UTC) + timedelta(seconds=SHORTEST_SESSION)


def _known(place: Mapping[str, str]) -> Mapping[str, str]:
    if not place:
        raise down("The object store behind this slice is no longer in the settings.")
    return place


def check_prefix(place: Mapping[str, str], issuer: AccessKey, binding: S3Binding, name: str) -> int | None:
    """How many objects lie under a prefix that a session can list and read; None for more than a thousand.

    Args:
        name: of the sessions it is tried with.

    Raises:
        Invalid: a session cannot read there, or could read elsewhere.
        BackendDown: no useful answer.
    """
    store = Store(place, issuer)
    try:
        guest = Store(place, store.open(name, binding, "read", SHORTEST_SESSION).key)
        found = guest.listed(binding.bucket, binding.prefix, _COUNTED)
        beside = guest.may(lambda s3: s3.list_objects_v2(Bucket=binding.bucket, MaxKeys=1))
    except StoreRefused as error:
        raise _not_registered(error.code) from error
    except ValueError as error:
        raise Invalid("The prefix is too long for a session's policy.", field="/binding/prefix") from error
    if beside:
        raise Invalid(
            "The store lets a session see beyond its prefix: it does not heed session policies.",
            field="/binding/connection",
            advice="Ask the operator to run: guestkey connect-backend s3 --check",
        )
    if found:
        _read(guest, binding, found[0])
    if folds_case(guest, binding):
        policy = listing_policy(binding.bucket, partition=store.partition)
        _only_spelling(Store(place, store.assume(name, policy, SHORTEST_SESSION).key), binding)
    return len(found) if len(found) < _COUNTED else None


def folds_case(guest: Store, binding: S3Binding) -> bool:
    """Whether a session's policy opens the prefix in capitals, too: SeaweedFS compares names without regard to case."""
    other = binding.prefix.swapcase()
    return other != binding.prefix and opens(
        guest, lambda s3: s3.get_object(Bucket=binding.bucket, Key=f"{other}guestkey-probe")
    )


def opens(guest: Store, act: Callable[[Any], object]) -> bool:
    """Whether the store lets a session do something, be it that there is nothing to do it to."""
    try:
        return guest.may(act)
    except StoreRefused:
        # Not there, which a session that may not look must not be told either.
        return True


def _read(guest: Store, binding: S3Binding, key: str) -> None:
    """Read from one object: a right to list says nothing of the key it is encrypted with, nor of whose it is."""
    try:
        guest.read_byte(binding.bucket, key)
    except StoreRefused as error:
        if error.code in _NOT_NOW:
            return
        raise Invalid(
            f"A session can list the prefix and not read from it: the store answers {error.code[:60]}.",
            field="/binding/prefix",
            advice="Where the bucket is encrypted with a KMS key, name it when connecting (--kms-key), and let the"
            " bucket own its objects. See docs/connect-s3.md.",
        ) from error


def _only_spelling(lister: Store, binding: S3Binding) -> None:
    """Refuse a prefix of which the bucket has another spelling: guests would reach both."""
    spellings = [""]
    for part in binding.prefix.split("/")[:-1]:
        below = [(above, folder) for above in spellings for folder in _folders(lister, binding.bucket, above)]
        spellings = [folder for above, folder in below if folder[len(above) : -1].casefold() == part.casefold()]
    others = [spelling for spelling in spellings if spelling != binding.prefix]
    if others:
        raise Invalid(
            f"This store compares names in a policy without regard to case: a guest would reach {others[0]}, too.",
            field="/binding/prefix",
            advice="Rename one of the two, or keep them in different buckets.",
        )


def _folders(lister: Store, bucket: str, prefix: str) -> list[str]:
    try:
        found, all_of_them = lister.folders(bucket, prefix, _PAGES)
    except StoreRefused as error:
        raise _not_registered(error.code) from error
    if not all_of_them:
        raise Invalid(
            "The store compares names in a policy without regard to case, and the bucket has too many to see whether"
            " another prefix differs in case only.",
            field="/binding/prefix",
            advice="Keep the slice in a bucket with fewer prefixes beside it.",
        )
    return found


def _not_registered(code: str) -> Invalid:
    if code in ("NoSuchBucket", "404"):
        return Invalid("There is no such bucket.", field="/binding/bucket")
    return Invalid(
        "The store does not allow a session to read there.",
        field="/binding/bucket",
        advice="Let the connection's role read and list the bucket; see docs/connect-s3.md.",
    )


KIND = S3Kind()
