"""Guests of an object store who fight: every call S3 knows, keys at the edge of a prefix, loops without end."""

from __future__ import annotations

import datetime
import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, urlsplit

from botocore import xform_name
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

# Names that mean another place to somebody, as they are put into a request's path; `{}` is the prefix.
EDGES = (
    "/clinic/{}../secret.json",
    "/clinic/{}%2e%2e/secret.json",
    "/clinic/{}..%2fsecret.json",
    "/clinic/{}..%5csecret.json",
    "/clinic/{}%252e%252e/secret.json",
    "/clinic/{}/../../secret.json",
    "/clinic/{}../../others/trials/0.json",
    "/clinic/{}%00/../../secret.json",
    "/clinic/{}%00",
    "/clinic/{}/",
    "/clinic/{}./x",
    "/clinic/{}.uploads/",
    "/clinic/{}",
    "/clinic/%2e/secret.json",
    "/clinic//secret.json",
    "//clinic/secret.json",
    "/clinic/.uploads/",
    "/clinic/trials",
    "/clinic/trials2/0.json",
    "/clinic/trials%E2%88%95x",
    "/clinic/trials%EF%BC%8Fx",
    "/clinic/",
    "/others/../clinic/secret.json",
    "/.uploads/x",
    "/etc/iam/identities.json",
    "/buckets/clinic/secret.json",
)
# Prefixes a reader asks the list of, as they are put into the query.
LISTINGS = ("", "prefix=", "prefix=trials", "prefix=trials2/", "prefix=&prefix=trials/", "prefix=Trials/", "prefix=%00")


def arguments(s3: Any, operation: str, bucket: str, key: str, upload: str) -> dict[str, Any]:
    """What an operation requires, with a payload if it takes one, about this object."""
    shape = s3.meta.service_model.operation_model(operation).input_shape
    if shape is None:
        return {}
    payload = shape.serialization.get("payload")
    names = {*shape.required_members, *([payload] if payload else [])}
    known = {
        "Bucket": bucket,
        "Key": key,
        "UploadId": upload,
        "CopySource": f"{bucket}/{key}",
        "RenameSource": f"{bucket}/{key}",
        "Policy": "{}",
        "Delete": {"Objects": [{"Key": key}]},
        "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": "x"}]},
    }
    return {name: known[name] if name in known else _value(shape.members[name]) for name in sorted(names)}


def _value(shape: Any) -> Any:
    kind = shape.type_name
    if kind == "structure":
        names = shape.required_members or list(shape.members)[:1]
        return {name: _value(shape.members[name]) for name in names}
    if kind == "list":
        return [_value(shape.member)]
    if kind == "timestamp":
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    simple = {"map": {"a": "b"}, "boolean": True, "integer": 1, "long": 1, "blob": b"x"}
    return simple.get(kind) or (shape.enum[0] if getattr(shape, "enum", None) else "x" * 20)


def method(s3: Any, operation: str) -> str:
    """The HTTP method of an operation."""
    found: str = s3.meta.service_model.operation_model(operation).http["method"]
    return found


def presigned(s3: Any, operation: str, **of: Any) -> str:
    """An address for an operation, signed now and good for an hour."""
    made: str = s3.generate_presigned_url(xform_name(operation), of, ExpiresIn=3600)
    return made


def ask(values: Mapping[str, str], how: str, path: str, query: str = "", body: bytes = b"") -> tuple[int, bytes]:
    """Ask for a path exactly as it is written, signed; no library has a chance to tidy it."""
    where = urlsplit(values["endpoint_url"]).netloc
    target = quote(path, safe="/%") + (f"?{query}" if query else "")
    request = AWSRequest(method=how, url=f"http://{where}{target}", data=body)
    keys = Credentials(values["access_key_id"], values["secret_access_key"], values["session_token"])
    S3SigV4Auth(keys, "s3", values["region"]).add_auth(request)
    connection = http.client.HTTPConnection(where, timeout=20)
    try:
        connection.request(how, target, body=body or None, headers=dict(request.headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def in_a_loop(how: str, addresses: Sequence[str], *, processes: int = 2) -> Iterator[None]:
    """Ask for signed addresses over 25 connections of each process, as fast as answers come, until the block ends."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    try:
        for one in running:
            assert one.stdin and one.stdout
            one.stdin.write("\n".join(addresses))
            one.stdin.close()
        for one in running:
            assert one.stdout and one.stdout.readline() == "begun\n"
        yield
    finally:
        for one in running:
            one.kill()
            one.wait(20)
            assert one.stdout
            one.stdout.close()


def _loop(how: str, addresses: Sequence[str], first: int, begun: threading.Barrier) -> None:
    number = first
    while True:
        url = urlsplit(addresses[number % len(addresses)])
        connection = http.client.HTTPConnection(url.netloc, timeout=20)
        with suppress(OSError, http.client.HTTPException):
            while True:
                url = urlsplit(addresses[number % len(addresses)])
                connection.request(how, f"{url.path}?{url.query}", body=b"x" if how in ("PUT", "POST") else None)
                connection.getresponse().read()
                number += 1
                if number == first + 1:
                    begun.wait(60)
        connection.close()


def _main() -> None:
    addresses, begun = sys.stdin.read().split("\n"), threading.Barrier(26)
    for first in range(25):
        threading.Thread(target=_loop, args=(sys.argv[1], addresses, first, begun), daemon=True).start()
    begun.wait(60)
    print("begun", flush=True)
    threading.Event().wait(300)


if __name__ == "__main__":
    _main()
