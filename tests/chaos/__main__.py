"""`python -m tests.chaos ROUNDS SEED`: a long run; `make chaos` calls it. It tells its seed, so that a run can be repeated."""

from __future__ import annotations

import sys
import time

from tests.chaos.chaos import run
from tests.labs import new_name, remove_leftovers


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    print(f"chaos: SEED={seed} ROUNDS={rounds}", flush=True)
    remove_leftovers()
    began = time.monotonic()
    run(new_name(), rounds, seed, long=True, say=lambda text: print(text, flush=True))
    print(f"chaos: SEED={seed} ROUNDS={rounds}: converged, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
