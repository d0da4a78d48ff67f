"""Processes of this host: what descends from which, and ending them for certain. Part of guestkey-sessions."""

import contextlib
import os
import signal
import time

GONE_WITHIN = 1.5


class Process:
    """One process: its number alone may be used again, with its start it is unique."""

    def __init__(self, pid):
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        self.pid, self.state, self.parent, self.started = pid, fields[0], int(fields[1]), fields[19]

    def __eq__(self, other):
        return (self.pid, self.started) == (other.pid, other.started)

    def __hash__(self):
        return hash((self.pid, self.started))

    def lives(self):
        now = look(self.pid)
        return now == self and now.state not in "ZX" if now else False

    def send(self, number):
        """Send a signal to this process and no other that may have its number meanwhile."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if look(self.pid) == self:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def look(pid):
    try:
        return Process(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def processes():
    return [found for name in os.listdir("/proc") if name.isdigit() and (found := look(int(name)))]


def trees(tops):
    """By process which of these it descends from, or is: one look at the system, however many they are."""
    everyone = processes()
    children, found = {}, {top: top for top in set(tops).intersection(everyone)}
    for process in everyone:
        children.setdefault(process.parent, []).append(process)
    waiting = list(found)
    for process in waiting:
        fresh = [child for child in children.get(process.pid, []) if child not in found]
        found.update(dict.fromkeys(fresh, found[process]))
        waiting += fresh
    return found


def kill(tops, hopeless=()):
    """Stop whole trees, so that nothing in them can make another process; kill them.

    Returns who is left, by process which of `tops` it came from. The `hopeless` were killed before and are not waited
    for: what waits for a disk that does not answer dies when that does, and nobody else's end may wait as long.
    """
    stopped = {}
    while fresh := {process: top for process, top in trees(tops).items() if process not in stopped}:
        for process in fresh:
            process.send(signal.SIGSTOP)
        stopped |= fresh
    for process in stopped:
        process.send(signal.SIGKILL)
    until = time.monotonic() + GONE_WITHIN
    awaited = [process for process in stopped if process not in hopeless]
    while (awaited := [process for process in awaited if process.lives()]) and time.monotonic() < until:
        time.sleep(0.005)
    return {process: top for process, top in stopped.items() if process.lives()}


def is_sshd(process):
    """Whether it is an sshd, or SFTP within one: the record says which process, not what it is."""
    with contextlib.suppress(OSError):
        program = os.path.basename(os.readlink(f"/proc/{process.pid}/exe")).removesuffix(" (deleted)")
        return program in ("sshd", "sshd-session")
    return False


def is_manager(process):
    """Whether it is the systemd that PAM starts beside a session: it runs nothing of a guest's, and goes by itself."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{process.pid}/exe") in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
    return False


def owner(process):
    """Whose rights it has. The owner of its folder in /proc is root's for whatever changed its user."""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/status", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[2]) for line in file if line.startswith("Uid:"))
    return None
