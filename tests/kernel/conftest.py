"""What can be seen on the kernel's datapath only is collected there only (`make test-kernel`)."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.option.datapath_type != "system" else None
