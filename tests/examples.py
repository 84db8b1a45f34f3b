"""How many examples a property is tried with, relative to the run: `make unit` tries a tenth."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

FULL = 100  # hypothesis' own default


def examples(count: int, **options: Any) -> settings:
    """Settings of a property that is tried with `count` examples in a full run."""
    return settings(max_examples=max(1, count * settings.default.max_examples // FULL), **options)
