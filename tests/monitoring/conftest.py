"""A real Prometheus runs only where it was unpacked (`make test-monitoring`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name == "test_prometheus.py" and "VNET_PROMETHEUS" not in os.environ else None
