"""What the shell offers after TAB: names of things at the installation. Bounded, never asks, silent on any failure."""

from __future__ import annotations

from collections.abc import Callable

from broker.cli import config, tokens
from broker.cli.faults import Fault

SECONDS = 1.0
_MOST = 100
Completion = Callable[[str], list[tuple[str, str]]]


def names(path: str, key: str = "id", about: str = "") -> Completion:
    """A completion that lists what the API has at a path.

    Args:
        key: the member to complete with.
        about: the member shown beside it, if the shell shows any.
    """

    def complete(incomplete: str) -> list[tuple[str, str]]:
        # Imported on TAB only: most commands complete nothing.
        import httpx

        try:
            url = config.installation_url()
            token = tokens.load(url)
            if token is None:
                return []
            answer = httpx.get(
                f"{url}/api/v1{path}",
                params={"limit": _MOST},
                headers={"Authorization": f"Bearer {token}"},
                timeout=SECONDS,
                trust_env=not config.is_loopback(url),
            )
            items = answer.json()["items"] if answer.is_success else []
        except (Fault, httpx.HTTPError, ValueError, KeyError, TypeError):
            # Nothing to offer: the shell goes on, and running the command says what is wrong.
            return []
        found = [(str(item.get(key, "")), str(item.get(about, "") or "")) for item in items if isinstance(item, dict)]
        return [(name, said) for name, said in found if name.startswith(incomplete)]

    return complete


DATASETS = names("/datasets", "slug", "title")
REQUESTS = names("/requests", "id", "purpose")
GRANTS = names("/grants", "id", "dataset")
LEASES = names("/leases", "id", "dataset")
PEOPLE = names("/people", "id", "name")
VENDORS = names("/vendors", "id", "name")
