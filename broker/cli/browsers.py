"""Opening an address in the person's browser, if there is one; the address is on the screen in any case."""

from __future__ import annotations

import os
import webbrowser


def try_open(address: str) -> None:
    """Open a window, and never a text browser: it would take the terminal that waits."""
    try:
        browser = webbrowser.get()
        if type(browser) is webbrowser.GenericBrowser and not os.environ.get("BROWSER"):
            return
        browser.open(address)
    except webbrowser.Error:
        # The address is on the screen already.
        return
