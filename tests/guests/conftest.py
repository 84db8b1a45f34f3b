"""Guests of QEMU run only where their image is (`make test-guests`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

IMAGE = "VNET_TEST_GUESTS"  # environment variable: the directory of kernel and initrd


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if os.environ.get(IMAGE) else True


@pytest.fixture(scope="session")
def image() -> Path:
    """The directory of the guests' kernel and initrd."""
    return Path(os.environ[IMAGE])
