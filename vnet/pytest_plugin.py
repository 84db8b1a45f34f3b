"""A pytest plugin: pools for tests, simulated or real, and the trace of what was sent when a test fails.

    @pytest.mark.vnet("office.vnet.yaml")
    def test_web_reaches_db(vnet_pool):
        assert vnet_pool.send("web1/0", Ether() / IP(dst="10.1.0.11")).to == ["db1/0"]

`--vnet-on sim` (the default) runs that on the simulator, `dummy` on rootless Open vSwitch, `netns` on network namespaces.
One rule: nothing but pytest is imported until a fixture is used.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vnet.lab import Lab
    from vnet.sim import SimPool
    from vnet.topology import Document

SHOWN_MAX = 3  # packets of a failed test whose trace is shown: the last ones
_SENT = pytest.StashKey[list[tuple[Any, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vnet", "virtual networks")
    group.addoption(
        "--vnet-on", choices=("sim", "dummy", "netns"), default="sim",
        help="what vnet_pool is: the simulator, rootless Open vSwitch, or network namespaces",
    )  # fmt: skip
    parser.addini("vnet_topology", "the document that tests without @pytest.mark.vnet(FILE) use", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vnet(file): the topology document of this test's pool")


@pytest.fixture
def vnet_document(request: pytest.FixtureRequest) -> Document:
    """The document of `@pytest.mark.vnet(FILE)` (beside the test's file, or from the root), else of the ini file."""
    from vnet.topology import load  # noqa: PLC0415

    marker = request.node.get_closest_marker("vnet")
    name = marker.args[0] if marker is not None and marker.args else request.config.getini("vnet_topology")
    if not name:
        pytest.fail(
            "no topology: say @pytest.mark.vnet('FILE.vnet.yaml'), or vnet_topology in the ini file", pytrace=False
        )
    for base in (request.path.parent, request.config.rootpath):
        if (path := Path(base) / name).is_file():
            return load(path.read_bytes(), str(path))
    pytest.fail(f"there is no {name} beside {request.path} nor in {request.config.rootpath}", pytrace=False)


@pytest.fixture
def vnet_pool(request: pytest.FixtureRequest, vnet_document: Document) -> Iterator[SimPool | Lab]:
    """The document's pool with every VM that has a host running, on what --vnet-on says."""
    kind = request.config.getoption("--vnet-on")
    if kind == "sim":
        from vnet.sim import SimPool  # noqa: PLC0415

        yield _remembering(request, SimPool.from_document(vnet_document))
    else:
        yield from _lab(request, vnet_document, kind)


@pytest.fixture
def vnet_lab(request: pytest.FixtureRequest, vnet_document: Document) -> Iterator[Lab]:
    """The document's pool on real Open vSwitch: rootless unless --vnet-on is netns."""
    kind = request.config.getoption("--vnet-on")
    yield from _lab(request, vnet_document, "netns" if kind == "netns" else "dummy")


def _lab(request: pytest.FixtureRequest, document: Document, kind: str) -> Iterator[Lab]:
    from vnet.lab import Driver, Lab  # noqa: PLC0415
    from vnet.objects import PoolState  # noqa: PLC0415
    from vnet.plan import desired_state  # noqa: PLC0415

    name = f"t{os.getpid()}x{abs(hash(request.node.nodeid)) % 10**8}"
    with Lab.up(desired_state(document, PoolState()), name=name, driver=Driver(kind), daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        yield _remembering(request, lab)


def _remembering(request: pytest.FixtureRequest, pool: Any) -> Any:
    """The pool, with what is sent written down for a trace."""
    sent = request.node.stash.setdefault(_SENT, [])
    send = pool.send

    def sending(source: Any, packets: Any, **options: Any) -> Any:
        sent.append((source, packets))
        return send(source, packets, **options)

    pool.send = sending
    return pool


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    sent = item.stash.get(_SENT, [])
    document = getattr(item, "funcargs", {}).get("vnet_document")
    if report.when == "call" and report.failed and sent and document is not None:
        pool = getattr(item, "funcargs", {}).get("vnet_pool")
        report.sections.append(("vnet trace", _traces(pool, document, sent[-SHOWN_MAX:])))


def _traces(pool: Any, document: Document, sent: list[tuple[Any, Any]]) -> str:
    """The way of packets on the twin; what cannot be traced says why."""
    from vnet.sim import SimError, SimPool, frames_of  # noqa: PLC0415
    from vnet.sim.trace import Trace, trace_packet  # noqa: PLC0415

    twin = pool if isinstance(pool, SimPool) else SimPool.from_document(document)
    texts = []
    for source, packets in sent:
        named = source if isinstance(source, str) else getattr(source, "name", str(source))
        try:
            where = source if isinstance(source, str) else twin.station(source.uplink, source.tag)
            for frame in frames_of(packets)[:1]:
                leg = trace_packet(twin, where, frame, f"{len(frame)} bytes from {named}")
                texts.append(str(Trace(f"sent by {named}", (leg,), bool(leg.to))))
        except SimError as error:
            texts.append(f"sent by {named}: {error}")
    return "\n\n".join(texts)
