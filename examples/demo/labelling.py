"""The demo's chapter on pictures: an object store read and written with boto3, as labelling tools do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.embedded import example

from .story import Story, data
from .user import User

SHAPES = example.PICTURES_SLUG


def label_pictures(story: Story, ada: User, laptop: User) -> None:
    """Pictures in an object store, read and labelled with boto3."""
    story.chapter("Labelling")
    words = ["--role", "annotator", "--purpose", "Label the shapes", "--period", "7d", "--json"]
    asked = str(data(ada.run("request", "new", SHAPES, *words)).get("id"))
    story.ran("Olga lets Ada label pictures", laptop.run("request", "approve", asked), 0, "approved")
    handed = data(ada.run("get", SHAPES, "--slice", "deidentified", "--kind", "s3", "--json"))
    credential, s3 = handed["credential"], _store(handed["credential"])
    listed = s3.list_objects_v2(Bucket=credential["bucket"], Prefix=credential["prefix"])["Contents"]
    first = s3.get_object(Bucket=credential["bucket"], Key=listed[0]["Key"])["Body"].read()
    story.step(
        "Ada reads the first picture with boto3",
        f"{listed[0]['Key']}: {len(first)} bytes, one of {len(listed)} files",
        first.startswith(b"\x89PNG"),
    )
    for told, act in (
        ("the answers beside it", lambda: s3.get_object(Bucket=credential["bucket"], Key="shapes/answers.json")),
        ("the whole bucket", lambda: s3.list_objects_v2(Bucket=credential["bucket"])),
        ("writing", lambda: s3.put_object(Bucket=credential["bucket"], Key=listed[0]["Key"], Body=b"x")),
    ):
        story.step(f"Ada tries {told}", *_no_access(act))
    labels = ("--slice", "labels", "--kind", "s3", "--action", "write", "--json")
    writing = data(ada.run("get", SHAPES, *labels))["credential"]
    key = f"{writing['prefix']}01.json"
    put = _store(writing).put_object(Bucket=writing["bucket"], Key=key, Body=b'{"file": "01.png", "shape": "circle"}')
    story.step("Ada hands in a label", f"{key} {put['ETag']}", bool(put["ETag"]))
    story.ran("Ada gives the first session back", ada.run("lease", "revoke", handed["lease"]["id"]), 0, "confirmed it")
    story.step(
        "the session, tried again",
        *_no_access(lambda: s3.get_object(Bucket=credential["bucket"], Key=listed[0]["Key"])),
    )


def _store(credential: Mapping[str, str]) -> Any:
    """What was handed over, in boto3's hands."""
    import boto3  # loading it takes half a second, which no other chapter need wait for

    return boto3.client(
        "s3",
        endpoint_url=credential["endpoint_url"],
        region_name=credential["region"],
        aws_access_key_id=credential["access_key_id"],
        aws_secret_access_key=credential["secret_access_key"],
        aws_session_token=credential["session_token"],
    )


def _no_access(act: Any) -> tuple[str, bool]:
    """Do something the object store should refuse; what it said, and whether it refused."""
    from botocore.exceptions import ClientError

    try:
        act()
    except ClientError as error:
        return str(error), error.response["Error"]["Code"] == "AccessDenied"
    return "it was allowed", False
