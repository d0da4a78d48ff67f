"""Disks that are full, or do not answer. They are mounted, which takes root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[None]:
    """A file system in memory over a folder of small files for a while, with what was in the folder.

    Args:
        options: `mount`'s for tmpfs: `size=` and `nr_inodes=` bound it.
    """
    with TemporaryDirectory() as kept:
        subprocess.run(["cp", "--archive", f"{place}/.", kept], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
        try:
            subprocess.run(["cp", "--archive", f"{kept}/.", place], check=True)
            yield
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def frozen_disk(place: Path, image: Path) -> Iterator[Callable[[], object]]:
    """A real file system over a folder; what is yielded freezes it, and no signal reaches who writes there then."""
    image.touch()
    os.truncate(image, 1 << 26)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    place.chmod(0o777)
    try:
        yield partial(subprocess.run, ["fsfreeze", "--freeze", place], check=True)
    finally:
        # It may not be frozen any more.
        subprocess.run(["fsfreeze", "--unfreeze", place], check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(folder: Path) -> None:
    """Write a file until nothing more fits, then make names until none does."""
    with suppress(OSError), (folder / "filling").open("wb", buffering=0) as full:
        while full.write(b"x" * 4096):
            pass
    with suppress(OSError):
        for number in range(10_000):
            (folder / f"filling-{number}").touch()


def make_room(folder: Path) -> None:
    """Take away what `fill` wrote."""
    for file in folder.glob("filling*"):
        file.unlink()
