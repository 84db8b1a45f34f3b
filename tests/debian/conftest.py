"""What a run's tests of the packages share, over all workers: the packages, over a bare root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.debian.machines import bare_root, packages


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    base = tmp_path_factory.getbasetemp()
    directory = (base if worker_id == "master" else base.parent) / "debian"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def root(netns: None) -> Path:
    return bare_root()


@pytest.fixture(scope="session")
def debs(shared: Path) -> list[Path]:
    return packages(shared)
