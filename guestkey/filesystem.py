"""`guestkey://DATASET/PATH` for fsspec, pandas and pyarrow, over S3. Needs `guestkey[arrow]`.

    fs = fsspec.filesystem("guestkey", client=client)
    fs.ls("trial-images")
    pyarrow.parquet.read_table("trials/2026.parquet", filesystem=fs)

What a slice's prefix is in its store does not show: paths begin with the dataset.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from guestkey.client import Client
from guestkey.closing import all_of
from guestkey.s3 import Place, open_slice

_MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchBucket"})
_FORBIDDEN = frozenset({"403", "AccessDenied", "ExpiredToken", "InvalidToken"})
# S3 takes parts of 5 MiB and more.
_BLOCK = 8 * 1024 * 1024


class GuestkeyFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The files of the datasets that the caller may read, or write with `action="write"`.

    Args:
        client: whose; None: one of its own, as `guestkey.Client()` makes it.
        slice: which part, where a dataset has several.
        lifetime: of each lease, in seconds; None: as the rule allows.
    """

    protocol = "guestkey"
    # Another caller may ask with the same words.
    cachable = False

    def __init__(
        self,
        client: Client | None = None,
        slice: str | None = None,
        action: str = "read",
        lifetime: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._client = client or Client()
        self._own_client = client is None
        self._wish: dict[str, Any] = {"slice": slice, "action": action, "lifetime": lifetime}
        self._places: dict[str, Place] = {}
        self._lock = threading.Lock()

    def ls(self, path: str, detail: bool = True, **_options: Any) -> Any:
        """What is directly below a path."""
        path = self._strip_protocol(path)
        place, key = self._found(path)
        folder = key if key == place.prefix else f"{key}/"
        with _errors(path):
            entries = [entry for page in _pages(place, folder) for entry in _entries(place, path, page)]
        if not entries and key != place.prefix:
            entries = [self.info(path)]
        return entries if detail else sorted(entry["name"] for entry in entries)

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """Size and kind of one path."""
        path = self._strip_protocol(path)
        place, key = self._found(path)
        if key == place.prefix:
            return {"name": path, "size": 0, "type": "directory"}
        try:
            with _errors(path):
                head = place.client.head_object(Bucket=place.bucket, Key=key)
        except FileNotFoundError:
            with _errors(path):
                below = place.client.list_objects_v2(Bucket=place.bucket, Prefix=f"{key}/", MaxKeys=1)
            if not below.get("KeyCount"):
                raise
            return {"name": path, "size": 0, "type": "directory"}
        return {"name": path, "size": head["ContentLength"], "type": "file", "LastModified": head["LastModified"]}

    def modified(self, path: str) -> Any:
        """When a file was last written."""
        return self.info(path)["LastModified"]

    def close(self) -> None:
        """Give the leases back."""
        with self._lock:
            places, self._places = list(self._places.values()), {}
        closings = [place.credentials.close for place in places]
        all_of([*closings, self._client.close] if self._own_client else closings)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> _File:
        place, key = self._found(self._strip_protocol(path))
        if mode not in ("rb", "wb") or key == place.prefix:
            raise OSError(errno.EINVAL, "Only whole files are read and written", path)
        options = {name: value for name, value in options.items() if name in ("autocommit", "cache_type", "size")}
        return _File(self, path, mode, block_size or _BLOCK, place=place, key=key, **options)

    def _found(self, path: str) -> tuple[Place, str]:
        """The slice a path is in, and the key there."""
        dataset, _, rest = path.partition("/")
        if not dataset:
            raise FileNotFoundError(errno.ENOENT, "A path begins with a dataset", path)
        with self._lock:
            if dataset not in self._places:
                self._places[dataset] = open_slice(self._client, dataset, **self._wish)
            place = self._places[dataset]
        return place, place.prefix + rest.strip("/")


class _File(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """One object, read by ranges or written in parts."""

    def __init__(self, *positional: Any, place: Place, key: str, **named: Any) -> None:
        self._place = place
        self._target = {"Bucket": place.bucket, "Key": key}
        self._upload = ""
        self._parts: list[dict[str, Any]] = []
        super().__init__(*positional, **named)

    def _fetch_range(self, start: int, end: int) -> bytes:
        with _errors(self.path):
            # S3's ranges name their last byte.
            answer = self._place.client.get_object(**self._target, Range=f"bytes={start}-{end - 1}")
            content: bytes = answer["Body"].read()
        return content

    def _initiate_upload(self) -> None:
        if self.autocommit and self.tell() < self.blocksize:
            return
        with _errors(self.path):
            self._upload = self._place.client.create_multipart_upload(**self._target)["UploadId"]

    def _upload_chunk(self, final: bool = False) -> bool:
        content = self.buffer.getvalue()
        with _errors(self.path):
            if not self._upload:
                if final:
                    self._place.client.put_object(**self._target, Body=content)
                return final
            if content:
                number = len(self._parts) + 1
                answer = self._place.client.upload_part(
                    **self._target, UploadId=self._upload, PartNumber=number, Body=content
                )
                self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            if final and self.autocommit:
                self.commit()
        return True

    def commit(self) -> None:
        """Make the parts one object."""
        with _errors(self.path):
            self._place.client.complete_multipart_upload(
                **self._target, UploadId=self._upload, MultipartUpload={"Parts": self._parts}
            )

    def __exit__(self, of: object, *more: object) -> None:
        if of is not None and self.mode == "wb":
            # Whoever broke off meant to write more: nothing is better than half of it.
            self.closed = True
            self.discard()
        else:
            self.close()

    def discard(self) -> None:
        """Leave nothing of what was written."""
        if self._upload:
            with _errors(self.path):
                self._place.client.abort_multipart_upload(**self._target, UploadId=self._upload)


def _pages(place: Place, folder: str) -> Iterator[dict[str, Any]]:
    pages = place.client.get_paginator("list_objects_v2")
    yield from pages.paginate(Bucket=place.bucket, Prefix=folder, Delimiter="/")


def _entries(place: Place, path: str, page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    dataset = path.partition("/")[0]
    for below in page.get("CommonPrefixes", ()):
        name = below["Prefix"].removeprefix(place.prefix).rstrip("/")
        yield {"name": f"{dataset}/{name}", "size": 0, "type": "directory"}
    for item in page.get("Contents", ()):
        name = item["Key"].removeprefix(place.prefix)
        # Some tools make an empty object to stand for a folder.
        if name and not name.endswith("/"):
            more = {"LastModified": item["LastModified"]}
            yield {"name": f"{dataset}/{name}", "size": item["Size"], "type": "file", **more}


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """What the store refuses, as whoever works with files expects it."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        if code in _MISSING:
            raise FileNotFoundError(errno.ENOENT, "There is no such file", path) from error
        if code in _FORBIDDEN:
            raise PermissionError(errno.EACCES, "The store refuses it", path) from error
        raise OSError(errno.EIO, f"The store answers {code}", path) from error
