"""`make bench`: every benchmark, in one run; exit 1 if one misses its bound."""

from __future__ import annotations

import sys

from benchmarks import bench_decide, bench_end, bench_issue

MOST_DECIDE_MS = 0.1


def main() -> int:
    """Run them all."""
    print("(c) decide, against the plain pycasbin enforcer (medians)")
    bench_decide.main()
    print()
    fast = bench_decide.run((10_000,))[0].decide <= MOST_DECIDE_MS
    issuing = bench_issue.main()
    print()
    ending = bench_end.main()
    return 0 if issuing and ending and fast else 1


sys.exit(main())
