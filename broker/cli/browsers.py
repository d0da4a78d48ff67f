"""Opening an address in the person's browser, if there is one; the address is on the screen in any case."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser


def try_open(address: str) -> None:
    """Open a window, and never a text browser: it would take the terminal that waits."""
    try:
        browser = webbrowser.get()
        if type(browser) is webbrowser.GenericBrowser and not os.environ.get("BROWSER"):
            return
        # In a program of its own: a browser that stays, or prints, must hold up and spoil nothing here.
        subprocess.Popen(
            [sys.executable, "-P", "-m", "webbrowser", address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (webbrowser.Error, OSError, ValueError):
        # The address is on the screen already.
        return
