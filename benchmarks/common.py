"""Peers measured side by side: alternately, medians, ratios, one table or one JSON object.

The one rule: no two peers run at the same time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: its key in the results, and how many times better ours shall be."""

    key: str
    unit: str
    reach: float | None = None
    below: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Medians per peer and figure of one piece of work."""

    work: str
    figures: tuple[Figure, ...]
    medians: dict[str, dict[str, float]]
    runs: int

    @classmethod
    def of(cls, work: str, figures: Sequence[Figure], samples: Sequence[Mapping[str, float]]) -> Result:
        """Ours alone, where there is no peer."""
        medians = {figure.key: statistics.median(one[figure.key] for one in samples) for figure in figures}
        return cls(work, tuple(figures), {"vnet": medians}, len(samples))

    def ratio(self, figure: Figure, peer: str, ours: str) -> float:
        """How many times more the peer takes than we do; where we take nothing, infinitely, unless neither does."""
        theirs, own = self.medians[peer][figure.key], self.medians[ours][figure.key]
        return theirs / own if own else 1.0 if theirs == own else math.inf


def compare(
    work: str,
    peers: Mapping[str, Callable[[], Mapping[str, float]]],
    figures: Sequence[Figure],
    runs: int = 5,
) -> Result:
    """Run every peer `runs` times, in turn, and take medians. The first peer is ours."""
    samples: dict[str, list[Mapping[str, float]]] = {name: [] for name in peers}
    for _ in range(runs):
        for name, measure in peers.items():
            samples[name].append(measure())
    medians = {
        name: {figure.key: statistics.median(one[figure.key] for one in taken) for figure in figures}
        for name, taken in samples.items()
    }
    return Result(work, tuple(figures), medians, runs)


_ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}  # a script finds only what is beside it


def in_process(script: str, *args: str) -> Callable[[], dict[str, float]]:
    """A measurement in a Python process of its own: `script` prints one JSON object as its last line."""

    def measure() -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, script, *args], stdout=subprocess.PIPE, text=True, check=True, timeout=600, env=_ENV
        )
        values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return values

    return measure


def report(results: Sequence[Result], as_json: bool) -> None:
    """Print the results as a table for people or as JSON."""
    if as_json:
        print(json.dumps([_plain(result) for result in results], indent=2))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, medians of {results[0].runs}")
    for result in results:
        print(f"\n{result.work}")
        ours = next(iter(result.medians))
        for figure in result.figures:
            for name, values in result.medians.items():
                value = values[figure.key]
                said = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
                line = f"  {figure.key:<24} {name:<28} {said:>12} {figure.unit}"
                if name != ours:
                    line += f"   ratio {result.ratio(figure, name, ours):.2f}"
                    line += f" (reach {figure.reach:g})" if figure.reach is not None else ""
                elif figure.below is not None:
                    line += f"   (below {figure.below:g})"
                print(line)


def _plain(result: Result) -> dict[str, Any]:
    ours = next(iter(result.medians))
    return {
        "work": result.work,
        "runs": result.runs,
        "medians": result.medians,
        "ratios": {
            figure.key: {  # JSON has no infinity
                peer: ratio if math.isfinite(ratio := result.ratio(figure, peer, ours)) else None
                for peer in result.medians
                if peer != ours
            }
            for figure in result.figures
        },
        "reach": {figure.key: figure.reach for figure in result.figures if figure.reach is not None},
        "below": {figure.key: figure.below for figure in result.figures if figure.below is not None},
    }


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options every benchmark takes: --json and --runs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--runs", type=int, default=5, help="measurements per peer, at least 5 for a claim")
    return parser
