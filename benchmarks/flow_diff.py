"""The difference of two tables of 100,000 flows, 10 of them changed.

  python -m benchmarks.flow_diff [--flows N] [--runs N] [--json]

diff        FlowTable.diff of two tables that exist: 4 flows to add, 3 to modify, 3 to delete
tables      what both tables cost to make out of flows that exist: keys and canonical bytes of 200,000 flows
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace

from benchmarks.common import Figure, arguments, compare, report
from benchmarks.flow_encode import ours
from ovsctl.openflow import FlowTable, Output

FIGURES = (Figure("diff", "s", below=0.150), Figure("tables", "s"))


def measure(count: int) -> dict[str, float]:
    """Seconds for tables of `count` flows, which share no object."""
    make, _ = ours()
    desired = [make(n) for n in range(3, count)]
    actual = [make(n) for n in range(count - 4)]
    for n in (10, 20, 30):
        desired[n] = replace(desired[n], actions=(Output(3),))
    gc.collect()
    start = time.perf_counter()
    want, have = FlowTable(desired), FlowTable(actual)
    made = time.perf_counter()
    changes = FlowTable.diff(want, have)
    done = time.perf_counter()
    if len(changes) != 10:
        raise RuntimeError(f"{len(changes)} changes, not 10")
    return {"diff": done - made, "tables": made - start}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--flows", type=int, default=100_000)
    given = parser.parse_args()
    result = compare(
        f"two tables of {given.flows} flows, 10 changed", {"ovsctl": lambda: measure(given.flows)}, FIGURES, given.runs
    )
    report([result], given.json)


if __name__ == "__main__":
    main()
