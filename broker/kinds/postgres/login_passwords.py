"""Passwords of the three logins while a database is being connected: in files of the operator's own, then nowhere.

What is printed for the database's administrator carries SCRAM verifiers (RFC 5803), from which no password follows.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from psycopg import pq

from broker.base.errors import Invalid

LOGINS = ("registrar", "minter", "watch")
_OTHERS = 0o077


class Passwords:
    """A folder only this user can read, with a file for each login; made on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def known(self, login: str) -> str | None:
        """The login's password, if it was made or put here.

        Raises:
            Invalid: others may read the folder or the file.
        """
        file = self._file(login)
        if not file.exists():
            return None
        for path in (self.folder, file):
            if path.is_symlink() or path.stat().st_mode & _OTHERS or path.stat().st_uid != os.geteuid():
                raise Invalid(f"{path} must be this user's alone.", advice=f"chmod go= {path}")
        return file.read_text().strip() or None

    def made(self, login: str) -> str:
        """The login's password, made if there is none."""
        if found := self.known(login):
            return found
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = secrets.token_urlsafe(32)
        descriptor = os.open(self._file(login), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        return password

    def verifier(self, login: str) -> str:
        """What PostgreSQL keeps of the login's password: nobody can log in with it."""
        # libpq computes it; the connection is never opened.
        connection = pq.PGconn.connect_start(b"host=/nowhere")
        try:
            made = connection.encrypt_password(
                self.made(login).encode(), f"guestkey_{login}".encode(), b"scram-sha-256"
            )
        finally:
            connection.finish()
        return made.decode()

    def forget(self) -> None:
        """Remove the files, and the folder if nothing else is in it."""
        for login in LOGINS:
            self._file(login).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _file(self, login: str) -> Path:
        return self.folder / f"{login}_password"
