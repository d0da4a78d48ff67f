"""`python -m broker.embedded up|down|status|passwords`: everything on this machine, for trying and for development."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from broker.embedded import up
from broker.embedded.children import StartFailed


def main() -> int:
    """Parse the command line and do it; 0 if done, 1 with one line on stderr if not."""
    parser = argparse.ArgumentParser(prog="python -m broker.embedded", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status", "passwords", "supervise"))
    parser.add_argument("--state", type=Path, default=Path(".state"), help="state folder (default: .state)")
    parser.add_argument("--port", type=int, default=8200, help="the portal's port on first start (default: 8200)")
    arguments = parser.parse_args()
    state = arguments.state.resolve()
    actions = {
        "up": lambda: up.start(state, arguments.port),
        "down": lambda: up.stop(state),
        "status": lambda: up.show(state),
        "passwords": lambda: up.passwords(state),
        "supervise": lambda: up.supervise(state, arguments.port),
    }
    try:
        return actions[arguments.command]()
    except StartFailed as error:
        print(f"guestkey: {error}", file=sys.stderr)
        return 1


sys.exit(main())
