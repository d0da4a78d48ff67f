"""Guests of SFTP who fight: what somebody with a certificate may do to keep a session, or to hinder somebody's end."""

from __future__ import annotations

import base64
import itertools
import os
import pwd
import signal
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.support.sshd import SftpGuest
from tests.support.waiting import until

# SFTP version 3 (draft-ietf-secsh-filexfer-02): kinds of packets, and flags of an opening.
INIT, OPEN, READ, WRITE, OPENDIR, READDIR, RENAME, STATUS, HANDLE = 1, 3, 5, 6, 11, 12, 18, 101, 102
EXTENDED = 200
READING, WRITING, CREATING = 1, 2, 8


def text(value: bytes | str) -> bytes:
    """A string as SSH writes it."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(raw)) + raw


class Sftp:
    """SFTP spoken by hand over a real `ssh`, to say what no honest client would."""

    def __init__(self, guest: SftpGuest, *options: str) -> None:
        self.ssh = subprocess.Popen(
            guest.command(*options, "-s", "HOST", "sftp"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=guest.folder,
            bufsize=0,
        )
        self._number = 0
        with suppress(BrokenPipeError):
            self.send(INIT, struct.pack(">I", 3))
        if not self.answer():
            self.close()
            raise ConnectionRefusedError("not let in")

    def send(self, kind: int, rest: bytes) -> None:
        """One packet; nobody waits for its answer."""
        self.write(struct.pack(">IB", len(rest) + 1, kind) + rest)

    def write(self, raw: bytes) -> None:
        """Bytes as they are."""
        assert self.ssh.stdin is not None  # opened with it
        while raw:
            raw = raw[self.ssh.stdin.write(raw) or 0 :]

    def answer(self) -> bytes:
        """The next packet, kind first; empty at the end."""
        head = self._read(4)
        return self._read(struct.unpack(">I", head)[0]) if len(head) == 4 else b""

    def ask(self, kind: int, rest: bytes) -> bytes:
        """One request and its answer, whose number is left out: its kind, then what it says."""
        self._number += 1
        self.send(kind, struct.pack(">I", self._number) + rest)
        said = self.answer()
        if not said:
            raise ConnectionResetError
        return said[:1] + said[5:]

    def opened(self, path: str, flags: int = READING) -> bytes:
        """A handle."""
        said = self.ask(OPEN, text(path) + struct.pack(">II", flags, 0))
        if said[0] != HANDLE:
            raise PermissionError(said)
        return said[5:]

    def write_at(self, handle: bytes, offset: int, content: bytes) -> None:
        """Write into a file, and do not wait for what becomes of it."""
        self._number += 1
        self.send(WRITE, struct.pack(">I", self._number) + text(handle) + struct.pack(">Q", offset) + text(content))

    def written(self, handle: bytes, offset: int, content: bytes) -> bool:
        """Write into a file; whether the host did."""
        return self.ask(WRITE, text(handle) + struct.pack(">Q", offset) + text(content))[1:5] == b"\0" * 4

    def close(self) -> None:
        """Be gone, stopped or not."""
        self.ssh.kill()
        self.ssh.wait(10)
        for pipe in (self.ssh.stdin, self.ssh.stdout):
            assert pipe is not None  # opened with both
            pipe.close()

    def _read(self, length: int) -> bytes:
        assert self.ssh.stdout is not None  # opened with it
        came = b""
        while len(came) < length and (more := self.ssh.stdout.read(length - len(came))):
            came += more
        return came


def running_as(account: str) -> list[int]:
    """Processes with an account's rights, the dead that nobody has buried left out."""
    uid, found = pwd.getpwnam(account).pw_uid, []
    for status in Path("/proc").glob("[0-9]*/status"):
        # One that has gone meanwhile runs as nobody.
        with suppress(OSError):
            said = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            if int(said["Uid"].split()[1]) == uid and said["State"][0] not in "ZX":
                found.append(int(status.parent.name))
    return found


class Fight:
    """One guest's connections, sessions and threads, of which nothing is left once a test is over."""

    def __init__(self, guest: SftpGuest) -> None:
        self.guest = guest
        self.over = threading.Event()
        self._left = ExitStack()

    def __enter__(self) -> Fight:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._left.close()

    def sftp(self, *options: str) -> Sftp:
        """Another connection, or another session where the options say so."""
        made = Sftp(self.guest, *options)
        self._left.callback(made.close)
        return made

    def child(self, *arguments: str) -> subprocess.Popen[bytes]:
        """An `ssh` of its own."""
        started = subprocess.Popen(
            self.guest.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.guest.folder,
        )
        self._left.callback(started.wait, 10)
        self._left.callback(started.kill)
        return started

    def serving(self, server: socketserver.BaseServer) -> None:
        """Have a server of the guest's answer in threads."""
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self._left.callback(server.server_close)
        self._left.callback(thread.join, 60)
        self._left.callback(server.shutdown)

    def beside(self, work: Callable[[], object], threads: int = 1) -> None:
        """Do something again and again, in threads, until the test is over or it is refused for good."""

        def again() -> None:
            while not self.over.is_set():
                try:
                    work()
                except OSError:
                    if self.over.wait(0.01):
                        return

        for _ in range(threads):
            thread = threading.Thread(target=again)
            thread.start()
            self._left.callback(thread.join, 60)


def _stopped(fight: Fight) -> None:
    """A client that is stopped in a transfer: the host's side cannot write."""
    session = fight.sftp()
    _ask_for_all(session, session.opened("big"))
    os.kill(session.ssh.pid, signal.SIGSTOP)


def _unread(fight: Fight) -> None:
    """Asks for a large file in thousands of pieces, and reads none of what comes."""
    session = fight.sftp()
    _ask_for_all(session, session.opened("big"))


def _ask_for_all(session: Sftp, handle: bytes) -> None:
    """As many requests as fit on their way; reading none of the answers, it could not write more."""
    pieces = (
        struct.pack(">IBI", 21 + len(handle), READ, number) + text(handle) + struct.pack(">QI", number * 65536, 65536)
        for number in range(20_000)
    )
    assert session.ssh.stdin is not None  # opened with it
    os.set_blocking(session.ssh.stdin.fileno(), False)
    with suppress(BlockingIOError):
        for _ in range(50):
            some = b"".join(itertools.islice(pieces, 400))
            if os.write(session.ssh.stdin.fileno(), some) < len(some):
                break
            time.sleep(0.01)


def _multiplexed(fight: Fight) -> None:
    """As many sessions as one connection takes, and the client that carries them stopped."""
    carrier = fight.child("-M", "-S", "carrier", "-N", "HOST")
    until((fight.guest.folder / "carrier").exists, what="the shared connection")
    for _ in range(4):
        fight.sftp("-S", "carrier").opened("hello.txt")
    os.kill(carrier.pid, signal.SIGSTOP)


def _half_written(fight: Fight) -> None:
    """Files opened and never closed, and half a packet."""
    session = fight.sftp()
    for number in range(10):
        handle = session.opened(f"in/half{number}-{id(fight)}", WRITING | CREATING)
        session.written(handle, 0, b"x" * 30_000)
    session.write(struct.pack(">IB", 40_000, WRITE) + b"y" * 10_000)


def _handles(fight: Fight) -> None:
    """As many open files as it gets."""
    session = fight.sftp()
    with suppress(PermissionError):
        for _ in range(2000):
            session.opened("hello.txt")


def _renaming(fight: Fight) -> None:
    session = fight.sftp()
    names = [f"in/{name}-{id(fight)}" for name in "ab"]
    session.opened(names[0], WRITING | CREATING)

    def rename() -> None:
        session.ask(RENAME, text(names[0]) + text(names[1]))
        session.ask(RENAME, text(names[1]) + text(names[0]))

    fight.beside(rename)


def _syncing(fight: Fight) -> None:
    """Writes much and has it brought to the disk, again and again."""
    session = fight.sftp()
    handle = session.opened(f"in/synced-{id(fight)}", WRITING | CREATING)

    def sync() -> None:
        for number in range(400):
            session.written(handle, number * 200_000, b"x" * 200_000)
        session.ask(EXTENDED, text("fsync@openssh.com") + text(handle))

    fight.beside(sync)


def _copying(fight: Fight) -> None:
    """Has the host copy without end, from one file into another."""
    session = fight.sftp()
    source, target = session.opened("big"), session.opened(f"in/copy-{id(fight)}", WRITING | CREATING)
    session.send(
        EXTENDED,
        struct.pack(">I", 9)
        + text("copy-data")
        + text(source)
        + struct.pack(">QQ", 0, 1 << 28)
        + text(target)
        + struct.pack(">Q", 0),
    )


def _listing(fight: Fight) -> None:
    session = fight.sftp()

    def all_of_it() -> None:
        handle = session.ask(OPENDIR, text("/"))[5:]
        while session.ask(READDIR, text(handle))[0] != STATUS:
            pass

    fight.beside(all_of_it)


def _connections(fight: Fight) -> None:
    for _ in range(5):
        fight.sftp().opened("hello.txt")


def _reconnecting(fight: Fight) -> None:
    """Logs in as often as it can, and keeps what it gets."""
    fight.beside(fight.sftp, threads=3)


def _no_session(fight: Fight) -> None:
    """A connection without any session, kept alive and given new keys without pause."""
    fight.child("-N", "-oServerAliveInterval=1", "-oRekeyLimit=1K", "HOST")
    fight.child("-N", "-oTCPKeepAlive=yes", "HOST")


def _unsigned(fight: Fight) -> None:
    """Before authentication: the certificate is shown and accepted, and what would prove the key never comes."""
    folder = fight.guest.folder
    certificate = (folder / "guestkey-cert.pub").read_text().split()[1]
    identities = struct.pack(">BI", 12, 1) + text(base64.b64decode(certificate)) + text("")

    class NeverSigns(socketserver.BaseRequestHandler):
        """An agent that lists the certificate, refuses what else is asked, and leaves a signature for later."""

        def handle(self) -> None:
            with suppress(OSError):
                while head := self.request.recv(4):
                    asked = self.request.recv(struct.unpack(">I", head)[0])[0]
                    if asked != 13:
                        self.request.sendall(text(identities if asked == 11 else b"\x05"))

    fight.serving(socketserver.ThreadingUnixStreamServer(str(folder / "agent"), NeverSigns))
    # Without the key beside it ssh has nothing but the agent to prove it with.
    (folder / "guestkey").rename(folder / "away")
    (folder / "guestkey.pub").write_text((folder / "guestkey-cert.pub").read_text())
    for _ in range(2):
        fight.child("-oIdentityAgent=agent", "-N", "HOST")


FIGHTS: Mapping[str, Callable[[Fight], None]] = {
    "client stopped": _stopped,
    "answers never read": _unread,
    "many sessions over one connection": _multiplexed,
    "many connections": _connections,
    "half an upload": _half_written,
    "thousands of handles": _handles,
    "renaming": _renaming,
    "syncing": _syncing,
    "copying": _copying,
    "listing": _listing,
    "no session, new keys": _no_session,
    "before authentication": _unsigned,
    "reconnecting": _reconnecting,
}
