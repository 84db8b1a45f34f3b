"""Rules of every test: a marker follows from the fixtures, and a test without a marker cannot start a daemon.

A fixture or a test that starts ovsdb-server or ovs-vswitchd requests `ovs`; one that makes network namespaces requests `netns`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The machines are shared, so the clock is no judge.
settings.register_profile("full", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("unit", settings.get_profile("full"), max_examples=10)

MARKED_BY = ("ovs", "netns")
FORBIDDEN = ("ovsdb-server", "ovs-vswitchd", "ip", "nsenter")
_REFUSAL = '#!/bin/sh\necho "$(basename "$0") $*" >>{log}\necho "a unit test may not start $0" >&2\nexit 1\n'
_guard = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def ovs() -> None:
    """Permission to start Open vSwitch's daemons; marks the test `ovs`. Removes the labs of runs that are dead."""
    if shutil.which("ovs-vswitchd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.fail("Open vSwitch is not installed: 'make install'; 'make unit' does not need it")
    from tests.labs import remove_leftovers

    remove_leftovers()


@pytest.fixture(scope="session")
def netns(ovs: None) -> None:
    """Permission to make network namespaces; marks the test `netns`."""
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root: 'sudo make test'; 'make unit' does not need it")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in MARKED_BY:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(name)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Try properties less often where only unit tests run, and make the programs that refuse: child processes find them by PATH."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # fixtures take down their daemons, as after Ctrl-C
    settings.load_profile("unit" if "not ovs" in config.option.markexpr else "full")
    directory = Path(tempfile.mkdtemp(prefix="unit-guard-"))
    for name in FORBIDDEN:
        program = directory / name
        program.write_text(_REFUSAL.format(log=shlex.quote(str(directory / "log"))))
        program.chmod(0o755)
    config.stash[_guard] = directory


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_guard], ignore_errors=True)
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is not None and not hasattr(config, "workerinput"):
        shutil.rmtree(factory.getbasetemp() / "debian", ignore_errors=True)  # a root of some 250 MB (tests/debian)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    yield from _guarded(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield from _guarded(item)


def _guarded(item: pytest.Item) -> Iterator[None]:
    """Run one phase of a test; an unmarked test finds the programs that refuse, and fails if any was called."""
    if item.get_closest_marker("ovs") is not None:
        return (yield)
    directory = item.config.stash[_guard]
    log, path = directory / "log", os.environ["PATH"]
    os.environ["PATH"] = f"{directory}:{path}"
    try:
        return (yield)
    finally:
        os.environ["PATH"] = path
        if log.exists():
            called = log.read_text().strip()
            log.unlink()
            pytest.fail(f"{item.nodeid} requests neither 'ovs' nor 'netns', and it started: {called}", pytrace=False)
