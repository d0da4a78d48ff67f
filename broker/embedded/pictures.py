"""The example's object store: a few made-up pictures of shapes to label, and a place for the labels.

Drawn here, so that nothing need be shipped or fetched.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from broker.embedded.seaweedfs import CONNECTION, SeaweedFS
from broker.models import Slice

BUCKET = "example"
SLUG = "shapes"
TITLE = "Pictures of shapes"
ABOUT = "Twelve made-up pictures of shapes, and the labels they were given so far. They are in an object store."
_SIDE = 48
_COLOURS = {"red": (200, 40, 40), "green": (40, 150, 60), "blue": (40, 70, 200)}
_Inside = Callable[[float, float], bool]
_SHAPES: Mapping[str, _Inside] = {
    "circle": lambda x, y: x * x + y * y < 0.6,
    "square": lambda x, y: max(abs(x), abs(y)) < 0.65,
    "triangle": lambda x, y: -0.7 < y < 0.7 and abs(x) < (0.7 + y) / 2,
    "ring": lambda x, y: 0.25 < x * x + y * y < 0.6,
}


def slices() -> Iterator[Slice]:
    """The slices of the dataset, without ids."""
    place = {"connection": CONNECTION, "bucket": BUCKET}
    for name, prefix, actions, about in (
        ("deidentified", "shapes/pictures/", ["read"], "The pictures, and a list of them."),
        ("labels", "shapes/labels/", ["read", "write"], "What was labelled so far."),
    ):
        binding = place | {"prefix": prefix}
        yield Slice(name=name, description=about, kind="s3", binding=binding, actions=actions)


def load(store: SeaweedFS) -> None:
    """Put the pictures into the example's bucket, beside something no slice shows."""
    s3 = store.client()
    s3.create_bucket(Bucket=BUCKET)
    listed = []
    for number, (shape, colour) in enumerate((shape, colour) for shape in _SHAPES for colour in _COLOURS):
        key = f"shapes/pictures/{number:02}.png"
        s3.put_object(Bucket=BUCKET, Key=key, Body=picture(shape, colour), ContentType="image/png")
        listed.append({"file": key.rpartition("/")[2], "ask": "Which shape is it?"})
    lines = "".join(json.dumps(line) + "\n" for line in listed)
    _put_text(s3, "shapes/pictures/tasks.jsonl", lines)
    _put_text(s3, "shapes/labels/00.json", json.dumps({"file": "00.png", "shape": "circle"}))
    _put_text(s3, "shapes/answers.json", json.dumps({"secret": "what every picture shows"}))


def _put_text(s3: Any, key: str, text: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode(), ContentType="application/json")


def picture(shape: str, colour: str) -> bytes:
    """A PNG of one shape (PNG specification, third edition: signature, IHDR, IDAT, IEND)."""
    inside, paint = _SHAPES[shape], bytes(_COLOURS[colour])
    rows = []
    for row in range(_SIDE):
        pixels = (
            paint if inside(2 * column / _SIDE - 1, 2 * row / _SIDE - 1) else b"\xff\xff\xff" for column in range(_SIDE)
        )
        rows.append(b"\x00" + b"".join(pixels))
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
