"""A pytest plugin: pools for tests, simulated or real, and the traces of a failed test's packets.

    @pytest.mark.vnet("office.vnet.yaml")
    def test_web_reaches_db(vnet_pool):
        assert vnet_pool.connect("web1/0", "db1/0", tcp=5432).reached

`--vnet-on sim` (the default) runs that on the simulator, `dummy` on rootless Open vSwitch, `netns` on network namespaces.
One rule: nothing but pytest is imported until a fixture is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from vnet.lab import Lab
    from vnet.sim import SimPool, Station
    from vnet.sim.trace import Trace
    from vnet.testing import PoolUnderTest
    from vnet.topology import Document

SHOWN_MAX = 3  # packets and conversations of a failed test whose traces are shown: the last ones
P = TypeVar("P", bound="PoolUnderTest")
Retrace = Callable[["SimPool"], "Trace"]
_RETRACES = pytest.StashKey[list[Retrace]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --vnet-on and vnet_topology."""
    group = parser.getgroup("vnet", "virtual networks")
    group.addoption(
        "--vnet-on", choices=("sim", "dummy", "netns"), default="sim",
        help="what vnet_pool is: the simulator, rootless Open vSwitch, or network namespaces",
    )  # fmt: skip
    parser.addini("vnet_topology", "the document that tests without @pytest.mark.vnet(FILE) use", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "vnet(file, scope='function'): the topology document of this test's pool; scope='module' keeps the pool",
    )


@pytest.fixture
def vnet_document(request: pytest.FixtureRequest) -> Document:
    """The document of `@pytest.mark.vnet(FILE)` (beside the test's file, or from the root), else of the ini file."""
    from vnet.topology import load, read_file  # noqa: PLC0415

    marker = request.node.get_closest_marker("vnet")
    name = marker.args[0] if marker is not None and marker.args else request.config.getini("vnet_topology")
    if not name:
        pytest.fail(
            "no topology: say @pytest.mark.vnet('FILE.vnet.yaml'), or vnet_topology in the ini file", pytrace=False
        )
    for base in (request.path.parent, request.config.rootpath):
        if (path := Path(base) / name).is_file():
            return load(read_file(path), str(path))
    pytest.fail(f"there is no {name} beside {request.path} nor in {request.config.rootpath}", pytrace=False)


@pytest.fixture
def vnet_pool(
    request: pytest.FixtureRequest, vnet_document: Document, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PoolUnderTest]:
    """The document's pool with every VM that has a host running, on the engine of --vnet-on."""
    engine = request.config.getoption("--vnet-on")
    if engine == "sim":
        from vnet.sim import SimPool  # noqa: PLC0415

        def simulated() -> AbstractContextManager[PoolUnderTest]:
            return nullcontext(SimPool.from_document(vnet_document))

        yield from _lasting(request, vnet_document, monkeypatch, engine, simulated)
    else:
        yield from _lasting(request, vnet_document, monkeypatch, engine, lambda: _lab(request, vnet_document, engine))


@pytest.fixture
def vnet_lab(request: pytest.FixtureRequest, vnet_document: Document, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The document's pool on real Open vSwitch: rootless unless --vnet-on is netns."""
    engine = "netns" if request.config.getoption("--vnet-on") == "netns" else "dummy"
    yield from _lasting(request, vnet_document, monkeypatch, engine, lambda: _lab(request, vnet_document, engine))


class ModulePools:
    """The pools of a test module, by engine and document."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.pools: dict[tuple[str, str], Any] = {}


@pytest.fixture(scope="module")
def _vnet_module_pools() -> Iterator[ModulePools]:
    with ExitStack() as stack:
        yield ModulePools(stack)


def _lasting(
    request: pytest.FixtureRequest,
    document: Document,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    build: Callable[[], AbstractContextManager[P]],
) -> Iterator[P]:
    """A pool that lasts for the test, or with scope='module' in the marker for all tests of the module."""
    marker = request.node.get_closest_marker("vnet")
    scope = marker.kwargs.get("scope", "function") if marker is not None else "function"
    if scope not in ("function", "module"):
        pytest.fail(f"@pytest.mark.vnet: scope is 'function' or 'module', not {scope!r}", pytrace=False)
    if scope == "function":
        with build() as pool:
            _record(request, monkeypatch, pool)
            yield pool
        return
    kept: ModulePools = request.getfixturevalue("_vnet_module_pools")
    key = engine, document.source.filename if document.source is not None else ""
    if key not in kept.pools:
        kept.pools[key] = kept.stack.enter_context(build())
    _record(request, monkeypatch, kept.pools[key])
    yield kept.pools[key]


def _lab(request: pytest.FixtureRequest, document: Document, engine: str) -> AbstractContextManager[Lab]:
    """A lab with all its VMs ready; it is down at the end."""
    from vnet.lab import Driver, Lab  # noqa: PLC0415
    from vnet.objects import PoolState  # noqa: PLC0415
    from vnet.plan import desired_state  # noqa: PLC0415

    name = f"t{os.getpid()}x{abs(hash(request.node.nodeid)) % 10**8}"
    lab = Lab.up(desired_state(document, PoolState()), name=name, driver=Driver(engine), daemons=True)
    try:
        lab.start_all()
        lab.wait_ready()
    except BaseException:
        lab.down()
        raise
    return lab


def _record(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, pool: PoolUnderTest) -> None:
    """Note the packets and conversations of a test, for the traces of a failure."""
    retraces = request.node.stash.setdefault(_RETRACES, [])
    send, connect = pool.send, pool.connect

    def recorded_send(source: str | Station, packets: Any, **options: Any) -> Any:
        retraces.append(lambda twin: _trace_packet(twin, source, packets))
        return send(source, packets, **options)

    def recorded_connect(source: str, target: str, **options: Any) -> Trace:
        before = len(retraces)
        trace = connect(source, target, **options)
        del retraces[before:]  # its packets are in the trace
        if not trace.reached:
            # A lab's trace tells which packet was lost; the twin's tells where.
            retraces.append(lambda twin: trace if _has_hops(trace) else twin.connect(source, target, **options))
        return trace

    monkeypatch.setattr(pool, "send", recorded_send)
    monkeypatch.setattr(pool, "connect", recorded_connect)


def _has_hops(trace: Trace) -> bool:
    return any(leg.hops for leg in trace.legs)


def _trace_packet(twin: SimPool, source: str | Station, packets: Any) -> Trace:
    from vnet.sim import frames_of  # noqa: PLC0415
    from vnet.sim.trace import Trace, trace_packet  # noqa: PLC0415

    name = source if isinstance(source, str) else source.name
    sender = source if isinstance(source, str) else twin.station(source.uplink, source.tag)
    legs = [trace_packet(twin, sender, frame, f"{len(frame)} bytes from {name}") for frame in frames_of(packets)[:1]]
    return Trace(f"sent by {name}", tuple(legs), any(leg.to for leg in legs))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add the traces of a failed test's last packets to its report."""
    outcome = yield
    report = outcome.get_result()
    retraces = item.stash.get(_RETRACES, [])
    document = getattr(item, "funcargs", {}).get("vnet_document")
    if report.when == "call" and report.failed and retraces and document is not None:
        pool = getattr(item, "funcargs", {}).get("vnet_pool")
        report.sections.append(("vnet trace", _render(pool, document, retraces[-SHOWN_MAX:])))


def _render(pool: Any, document: Document, retraces: list[Retrace]) -> str:
    """The traces on the pool itself if it is simulated, else on a twin of the document."""
    from ovsctl.datapath import DatapathError  # noqa: PLC0415
    from vnet.sim import SimError, SimPool  # noqa: PLC0415

    twin = pool if isinstance(pool, SimPool) else SimPool.from_document(document)
    texts = []
    for retrace in retraces:
        try:
            texts.append(retrace(twin).render())
        except (SimError, DatapathError) as error:
            texts.append(f"no trace: {error}")
    return "\n\n".join(texts)
