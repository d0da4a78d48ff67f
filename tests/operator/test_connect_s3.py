"""`guestkey connect-backend s3` on a real store: what it proves, what it keeps, and what it refuses to connect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broker.base.settings import Settings
from broker.embedded.seaweedfs import ROLE_ARN
from broker.embedded.stack import Stack
from broker.kinds.s3.binding import denied_in
from broker.kinds.s3.connecting import unopened
from broker.kinds.s3.ending import lock_path
from broker.operator.main import app
from broker.runtime.parts import Parts, vault_of
from tests.support.data import BUCKET
from tests.support.doors import answering, open_to_all

Run = Callable[..., Result]
KEY = "arn:aws:kms:eu-central-1:111122223333:key/0f6c1a2b-1111-2222-3333-444455556666"


@pytest.fixture
def run(stack: Stack, parts: Parts, tmp_path: Path) -> Run:
    """Run the command as the operator, on the embedded store as if it were a customer's."""
    assert parts.tag
    for identity in ("issuer", "ender", "owner"):
        key = stack.store.key(identity)
        (tmp_path / identity).write_text(f"{key.access_key_id}\n{key.secret_access_key}\n")

    def connect(*arguments: str, **changed: str) -> Result:
        options = {
            "--name": "pictures",
            "--bucket": BUCKET,
            "--role-arn": ROLE_ARN,
            "--endpoint-url": stack.store.address,
            "--issuer-key-file": str(tmp_path / "issuer"),
            "--ender-key-file": str(tmp_path / "ender"),
            "--operator-secret-id-file": str(stack.bao.secret_id_file("guestkey-operator")),
        } | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
        given = [word for pair in options.items() for word in pair]
        return CliRunner().invoke(app, ["connect-backend", "s3", "--json", *given, *arguments], env=stack.environment())

    return connect


def data(result: Result) -> dict[str, Any]:
    """The data of the JSON document."""
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)["data"]
    return found


def test_store_is_verified_and_its_keys_stored(run: Run, stack: Stack, settings: Settings) -> None:
    ran = run()
    found = data(ran)
    place = found["s3_connections"]["pictures"]
    assert found["connected"] is True
    assert (place["ended_by"], place["role_arn"]) == ("aws:username", ROLE_ARN)
    assert 1.0 <= place["settles"] < 10
    for identity in ("issuer", "ender"):
        key = stack.store.key(identity)
        kept = vault_of(settings, identity).secret(f"connections/pictures/s3-{identity}")
        assert kept == {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
        assert key.secret_access_key not in ran.output
    assert "nothing beside it" in ran.stderr
    assert "objects" in found["s3_connections"]


def test_policy_is_not_written_while_a_worker_writes_it(run: Run, stack: Stack, settings: Settings) -> None:
    """Between its reading and its writing a refusal would be lost, and the session it ended would live again."""
    vault, mark = vault_of(settings, "ender"), lock_path(stack.store.address, BUCKET)
    _, version = vault.entry(mark)
    assert vault.keep_if(mark, {"holder": "busy"}, version)
    try:
        ran = run("--check")
    finally:
        assert vault.keep_if(mark, {"holder": ""}, version + 1)
    assert ran.exit_code != 0 and "Another worker is writing the bucket's policy." in ran.output
    assert data(run("--check"))["connected"] is False


def test_check_stores_nothing_and_restores_the_policy(run: Run, stack: Stack, settings: Settings) -> None:
    owner = stack.store.client()
    theirs = {
        "Sid": "Theirs",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": "arn:aws:s3:::clinic/x/*",
    }
    owner.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [theirs]}))
    assert data(run("--check", name="unkept"))["connected"] is False
    assert vault_of(settings, "ender").found_secret("connections/unkept/s3-ender") is None
    after = owner.get_bucket_policy(Bucket=BUCKET)["Policy"]
    assert not denied_in(after)
    assert [statement["Sid"] for statement in json.loads(after)["Statement"]] == ["Theirs"]
    owner.delete_bucket_policy(Bucket=BUCKET)


def test_overprivileged_key_causes_a_warning(run: Run, tmp_path: Path) -> None:
    ran = run("--check", ender_key_file=str(tmp_path / "owner"))
    assert ran.exit_code == 0
    assert "! The ender's key can list the bucket itself" in ran.stderr


def encrypted(stack: Stack, key: str | None) -> None:
    """Give the bucket a default key, or take it away."""
    owner = stack.store.client()
    if key is None:
        owner.delete_bucket_encryption(Bucket=BUCKET)
        return
    default = {"SSEAlgorithm": "aws:kms"} | ({"KMSMasterKeyID": key} if key else {})
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    owner.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=rules)


@pytest.fixture
def kms(stack: Stack) -> Iterator[None]:
    """The bucket is encrypted with a key that lies in AWS."""
    encrypted(stack, KEY)
    yield
    encrypted(stack, None)


@pytest.mark.usefixtures("kms")
def test_bucket_with_an_unusable_kms_key_is_refused(run: Run) -> None:
    ran = run("--check")
    assert ran.exit_code == 1
    assert f"encrypted with the KMS key {KEY}" in ran.stderr
    assert f"--kms-key {KEY}" in ran.stderr
    other = run("--check", "--kms-key", KEY.replace("0f6c", "1f6c"))
    assert other.exit_code == 1


@pytest.mark.usefixtures("kms")
def test_kms_key_option_is_stored_in_the_setting(run: Run) -> None:
    ran = run("--check", "--kms-key", KEY)
    assert data(ran)["s3_connections"]["pictures"]["kms_keys"] == [KEY]
    assert "right to the KMS key through the store" in ran.stderr


def test_store_managed_key_needs_no_option(run: Run, stack: Stack) -> None:
    encrypted(stack, "pictures")
    try:
        ran = run("--check")
    finally:
        encrypted(stack, None)
    assert ran.exit_code == 0
    assert "which it uses by itself" in ran.stderr


@pytest.mark.parametrize(
    ("keys", "given", "at_aws", "unknown"),
    [
        ([], [], True, None),
        ([KEY], [KEY], True, None),
        ([KEY], [], False, KEY),
        ([KEY.rpartition("/")[2]], [KEY], True, None),
        ([KEY[-36:]], ["arn:aws:kms:us-east-1:1:key/other"], True, KEY[-36:]),
        (["pictures"], [], False, None),
        (["pictures"], [], True, "pictures"),
        ([""], [], True, ""),
        ([""], [KEY], True, None),
        (["alias/scans"], [], True, "alias/scans"),
        (["arn:aws:kms:eu-central-1:1:alias/scans"], [KEY], True, None),
        ([KEY, "other"], [KEY], True, "other"),
    ],
)
def test_unusable_kms_key_is_identified(keys: list[str], given: list[str], at_aws: bool, unknown: str | None) -> None:
    assert unopened(keys, given, at_aws=at_aws) == unknown


def test_unfinished_uploads_without_a_lifecycle_rule_cause_a_warning(run: Run, stack: Stack) -> None:
    owner = stack.store.client()
    assert "leaves unfinished stay in this bucket for ever" in run("--check").stderr
    rule = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}}
    abort = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
    owner.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule | abort]})
    try:
        assert "unfinished" not in run("--check").stderr
    finally:
        owner.delete_bucket_lifecycle(Bucket=BUCKET)


def test_case_insensitive_store_causes_a_warning(run: Run) -> None:
    assert "a guest of trials/ reaches TRIALS/, too" in run("--check").stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "Pictures"}, "lower case"),
        ({"role_arn": "admin"}, "--role-arn"),
        ({"endpoint_url": "http://store.example"}, "https only"),
        ({"endpoint_url": "ftp://127.0.0.1"}, "no address"),
        ({"kms_key": "alias/scans"}, "--kms-key"),
        ({"bucket": "clin*ic"}, "bucket's name"),
        ({"bucket": "nonesuch"}, "nonesuch"),
        ({"role_arn": "arn:aws:iam::000000000000:role/nobody"}, "refuses to open a session"),
    ],
)
def test_connection_errors_are_one_line(run: Run, changed: dict[str, str], said: str) -> None:
    ran = run("--check", **changed)
    assert ran.exit_code == 1
    assert said in ran.stderr


def test_a_key_that_may_not_write_policies_is_refused(run: Run, tmp_path: Path) -> None:
    ran = run("--check", ender_key_file=str(tmp_path / "issuer"))
    assert ran.exit_code == 1
    assert "does not let the ender's key" in ran.stderr


def test_a_key_file_of_another_shape_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("just-one-line\n")
    ran = run("--check", issuer_key_file=str(tmp_path / "odd"))
    assert ran.exit_code == 1
    assert "two lines" in ran.stderr


def test_a_store_that_heeds_no_session_policy_is_refused(run: Run) -> None:
    """As several do that speak S3: the session is opened, and can do what its role can."""
    with open_to_all() as address:
        ran = run("--check", endpoint_url=address)
    assert ran.exit_code == 1
    assert "could list the whole bucket" in ran.stderr


def test_server_other_than_an_object_store_is_reported(run: Run) -> None:
    with answering(b"<html>hello</html>") as address:
        ran = run("--check", endpoint_url=address)
    assert ran.exit_code == 1
    assert "not an object store" in ran.stderr
