"""Opening an address in the person's browser, if there is one; the address is on the screen in any case."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser


def try_open(address: str) -> None:
    """Open a window, in a program of its own: what it asks the desktop, or a browser that stays, may never answer."""
    try:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "guestkey.cli.browsers", address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError):
        # The address is on the screen already.
        return


def _open(address: str) -> None:
    """Never a text browser: it would take the terminal that waits."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if type(browser) is not webbrowser.GenericBrowser or os.environ.get("BROWSER"):
        webbrowser.open(address)


if __name__ == "__main__":
    _open(sys.argv[1])
