"""A disk that can be filled without filling anybody else's: a file system of its own, in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_BLOCK = bytes(65536)


@dataclass(frozen=True)
class SmallDisk:
    """Where it is mounted."""

    folder: Path

    def fill(self) -> None:
        """Leave room for nothing."""
        for size in (len(_BLOCK), 4096):
            with suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as filler:
                while filler.write(_BLOCK[:size]):
                    pass
        assert os.statvfs(self.folder).f_bavail == 0

    def make_room(self) -> None:
        """Take away what filled it."""
        (self.folder / "filler").unlink()


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Mount one, which needs root, or sudo as `.ci/run` needs it."""
    with TemporaryDirectory(prefix="guestkey-disk-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "disk"
        folder.mkdir()
        options = f"size={megabytes}m,mode=0711,uid={os.getuid()},gid={os.getgid()}"
        _as_root("mount", "-t", "tmpfs", "-o", options, "guestkey-test", str(folder))
        try:
            yield SmallDisk(folder)
        finally:
            # Lazily: a server that was stopped may hold it for a moment longer.
            _as_root("umount", "--lazy", str(folder))


def _as_root(*command: str) -> None:
    subprocess.run([*([] if os.geteuid() == 0 else ["sudo", "-n"]), *command], check=True)
