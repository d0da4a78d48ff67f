"""Run as a script: change user, ask the kernel for a signal when the parent dies, become the command.

Standard library only, and isolated: `python -I -S launch.py SIGNAL PARENT UID GID COMMAND…`. Linux honours the
death signal; elsewhere children outlive a killed parent.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Order matters: changing the user clears the death signal, and the parent may be gone already."""
    death_signal, parent, uid, gid = (int(word) for word in sys.argv[1:5])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent is gone")
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606  becoming the command is the point


main()
