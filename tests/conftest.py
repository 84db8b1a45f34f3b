"""Rules of every test: a marker follows from the fixtures, and a test without a marker cannot start a daemon.

A fixture or a test that starts ovsdb-server or ovs-vswitchd requests `ovs`; one that makes network namespaces requests `netns`.
"""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.recheck import ENDED

# Where the environment forbids Python to keep compiled code, each process that a test starts would compile it all again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The machines are shared, so the clock is no judge.
# A submission is judged by the same examples each time; whoever runs the tests otherwise looks at new ones.
settings.register_profile(
    "full", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.register_profile("unit", settings.get_profile("full"), max_examples=10)

MARKED_BY = ("ovs", "netns")
FORBIDDEN = ("ovsdb-server", "ovs-vswitchd", "ip", "nsenter")
_REFUSAL = '#!/bin/sh\necho "$(basename "$0") $*" >>{log}\necho "a unit test may not start $0" >&2\nexit 1\n'
FAILED = pytest.StashKey[bool]()  # of a test, for the fixtures that end after it
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--datapath-type",
        choices=("netdev", "system"),
        default="netdev",
        help="of the labs in namespaces; system: only tests with such labs run, and those skip that the kernel has no part for",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name in MARKED_BY:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(name)
    if config.option.datapath_type == "system":
        elsewhere = [item for item in items if not _in_namespaces(item)]
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in set(elsewhere)]


def pytest_collection_finish() -> None:
    """The collector looks no more at what was collected, which is more than tests make: a sixth of what a compilation costs."""
    gc.freeze()
    gc.enable()


def _in_namespaces(item: pytest.Item) -> bool:
    """Whether a test has a lab in network namespaces, by its marker and its parameters."""
    from vnet.lab import Driver

    parameters = (
        item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    )
    return item.get_closest_marker("netns") is not None and not {Driver.DUMMY, "dummy"} & {
        value for value in parameters if isinstance(value, str | Driver)
    }


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Try properties less often where only unit tests run, and make the programs that refuse: child processes find them by PATH."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # fixtures take down their daemons, as after Ctrl-C
    gc.disable()  # till everything is collected, which stays
    os.environ["VNET_LAB_FORK"] = ""  # what a restart costs is judged by packets, and loading code only delays it
    os.environ["VNET_LAB_DATAPATH_TYPE"] = config.option.datapath_type
    settings.load_profile("unit" if "not ovs" in config.option.markexpr else "full")
    directory = Path(tempfile.mkdtemp(prefix="unit-guard-"))
    for name in FORBIDDEN:
        program = directory / name
        program.write_text(_REFUSAL.format(log=shlex.quote(str(directory / "log"))))
        program.chmod(0o755)
    config.stash[_guard] = directory


def pytest_sessionstart(session: pytest.Session) -> None:
    _keep_end(session.config, None)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    _keep_end(session.config, int(exitstatus))


def _keep_end(config: pytest.Config, status: int | None) -> None:
    """How this run ended, None while it runs: `make recheck` asks whether every test was tried."""
    if not hasattr(config, "workerinput") and hasattr(config, "cache"):
        config.cache.set(ENDED, status)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_guard], ignore_errors=True)
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is not None and not hasattr(config, "workerinput"):
        shutil.rmtree(factory.getbasetemp() / "debian", ignore_errors=True)  # packages (tests/debian)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    yield from _guarded(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield from _guarded(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    report: pytest.TestReport = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    if report.when == "call" and report.failed:
        report.sections += _datapaths(item)
    return report


def _datapaths(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """What the datapaths of a test's lab forward and track by now, each with a title: a race is rarely seen twice."""
    from vnet.lab import Lab, LabError

    values = list(getattr(item, "funcargs", {}).values())
    labs = {value for holder in values for value in (holder, getattr(holder, "pool", None)) if isinstance(value, Lab)}
    for lab in labs:
        for host in (host.name for host in lab.spec.hosts):
            for command in ("dpctl/dump-flows", "dpctl/dump-conntrack"):
                try:
                    text = lab.ovs(host).appctl(command)
                except (LabError, OSError) as error:
                    text = str(error)
                yield f"{command} of {host}", "\n".join(text.splitlines()[:100])


def _skipped_where_unsupported() -> Iterator[None]:
    """Run one phase of a test; where the kernel lacks a part that its lab needs, it is skipped, with that reason."""
    from vnet.lab import LabUnsupported

    try:
        return (yield)
    except LabUnsupported as error:
        pytest.skip(str(error))


def _guarded(item: pytest.Item) -> Iterator[None]:
    """Run one phase of a test; an unmarked test finds the programs that refuse, and fails if any was called."""
    if item.config.option.datapath_type == "system":
        return (yield from _skipped_where_unsupported())
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
