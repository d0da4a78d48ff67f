"""Which installation the command talks to: `--url`, `GUESTKEY_URL`, or the file that `guestkey login` wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from platformdirs import user_config_path

from guestkey.cli.faults import Code, Fault


def config_file() -> Path:
    """Where the address is kept."""
    return user_config_path("guestkey", appauthor=False) / "config.json"


def installation_url(wanted: str | None = None) -> str:
    """The installation's address, without a trailing slash.

    Raises:
        Fault: none is known, or it would send a token in clear text over a network.
    """
    url = wanted or os.environ.get("GUESTKEY_URL") or _kept()
    if not url:
        raise Fault(
            Code.SIGN_IN,
            "No Guestkey installation is configured.",
            next_step="guestkey login https://guestkey.example.com   (or set GUESTKEY_URL)",
        )
    return checked(url)


def checked(url: str) -> str:
    """The address in its one form.

    Raises:
        Fault: it is not an https address, nor http on this computer.
    """
    try:
        parts = urlsplit(url)
        named = (parts.hostname or "").encode("idna") and (parts.port or 1)
    except ValueError as error:  # UnicodeError, too
        raise no_address(url) from error
    if parts.scheme not in {"https", "http"} or not named or parts.query or parts.fragment or parts.username:
        raise no_address(url)
    if parts.scheme == "http" and not is_loopback(url):
        raise Fault(
            Code.USAGE,
            f"{url} is not encrypted.",
            why="Tokens are sent only over https, except to this computer.",
            next_step=f"Use https{url.removeprefix(parts.scheme)}.",
        )
    return url.rstrip("/")


def no_address(url: str) -> Fault:
    """What was given is not where an installation could be."""
    return Fault(Code.USAGE, f"{url!r} is not the address of an installation.", next_step="Use https://host[:port].")


def is_loopback(url: str) -> bool:
    """Whether the address is on this computer."""
    return urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}


def remember(url: str) -> None:
    """Keep the address for the next commands."""
    file = config_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"url": url}) + "\n")


def _kept() -> str | None:
    try:
        kept = json.loads(config_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise _unreadable(why or "It is damaged.") from error
    url = kept.get("url") if isinstance(kept, dict) else None
    if not isinstance(url, str):
        raise _unreadable("It contains no address.")
    return url


def _unreadable(why: str) -> Fault:
    return Fault(
        Code.FAULT, f"{config_file()} cannot be read.", why=why, next_step="Remove it, then: guestkey login URL"
    )
