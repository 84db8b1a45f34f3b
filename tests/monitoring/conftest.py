"""A real Prometheus, nfdump and pmacct run only where they were unpacked (`make test-monitoring`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return (
        True
        if collection_path.name in ("test_nfdump.py", "test_pmacct.py", "test_prometheus.py")
        and "VNET_PROMETHEUS" not in os.environ
        else None
    )
