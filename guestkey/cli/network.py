"""The one way out to an installation: whose certificates are believed, and which proxy is in between."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from guestkey.cli import config
from guestkey.cli.faults import Code, Fault

# Imported where something is sent, so that help stays quick; and without the command line it brings, whose Rich and
# Pygments take longer to import than all of ours. httpx takes that for its optional part not being installed.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
if TYPE_CHECKING:
    import httpx

MEND_PROXY = "Correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY."


def client(url: str, headers: Mapping[str, str], timeout: httpx.Timeout | float) -> httpx.Client:
    """What speaks to the installation at `url`.

    Raises:
        Fault: the address, the proxy's or the file of certificates cannot be used.
    """
    import httpx

    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise config.no_address(url) from error
    try:
        return httpx.Client(
            base_url=base,
            headers=headers,
            timeout=timeout,
            verify=trust(url),
            # A proxy from the environment must not see what goes to this very computer.
            trust_env=not config.is_loopback(url),
            follow_redirects=False,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise _no_proxy(url) from error


def trust(url: str) -> ssl.SSLContext:
    """Whose certificates are believed: those of `SSL_CERT_FILE` and `SSL_CERT_DIR` alone, else this system's.

    Raises:
        Fault: a file or folder that is named cannot be read.
    """
    if not url.startswith("https:"):
        # Nothing is encrypted to this very computer, and reading the system's certificates takes time.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    try:
        if file or folder:
            return ssl.create_default_context(cafile=file, capath=folder)
        return _of_the_system()
    except OSError as error:
        raise Fault(
            Code.USAGE,
            f"{file or folder or 'The certificates of this computer'} cannot be read.",
            why=f"SSL_CERT_FILE names it: {error.strerror or type(error).__name__}." if file else str(error.strerror),
            next_step="Name a readable file of certificates in PEM, or unset SSL_CERT_FILE.",
        ) from error


def proxy(url: str) -> str | None:
    """The proxy between here and the installation, as the environment names it."""
    parts, known = urlsplit(url), getproxies()
    named = known.get(parts.scheme) or known.get("all")
    if not named or config.is_loopback(url) or proxy_bypass(parts.hostname or ""):
        return None
    return named if "://" in named else f"http://{named}"


def _no_proxy(url: str) -> Fault:
    # Not the proxy itself: its address may hold a password.
    return Fault(
        Code.USAGE,
        "The proxy that the environment names cannot be used.",
        why="Only HTTP proxies can be used: http://host:port.",
        next_step=f"{MEND_PROXY} To connect without it: NO_PROXY={urlsplit(url).hostname}",
    )


def _of_the_system() -> ssl.SSLContext:
    known = ssl.get_default_verify_paths()
    folder = Path(known.capath) if known.capath else None
    if sys.platform == "win32" or known.cafile or (folder is not None and any(folder.iterdir())):
        return ssl.create_default_context()
    # A system without certificates, such as a small container, brings nobody to believe.
    import certifi

    return ssl.create_default_context(cafile=certifi.where())
