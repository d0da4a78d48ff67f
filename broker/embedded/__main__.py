"""`python -m broker.embedded up|down|status|passwords`: everything on this machine, for trying and for development."""

import sys

from broker.embedded.up import main

sys.exit(main(__doc__))
