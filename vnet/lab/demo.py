"""`make demo`: a pool at work, as a person would look at it. Its figures are measured with packets."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vnet.lab import netns
from vnet.lab.errors import LabError, LabUnsupported
from vnet.lab.expectations import check
from vnet.lab.lab import Lab, remove
from vnet.lab.matrix import Matrix, Pair, Reached, expected, measure
from vnet.lab.processes import start_time
from vnet.lab.spec import Driver, Guest, Spec, labs
from vnet.lab.streams import Received
from vnet.objects import PoolState, Vif, Way
from vnet.topology.document import Document

Say = Callable[[str], None]
SYMBOLS = {Reached.NOT: "·", Reached.ONCE: "●", Reached.DOUBLED: "2"}
STREAM_LEAD_S = 0.5
REPAIR_TIMEOUT_S = 60.0  # only names a failure: the machine may be busy
ACCEPTABLE_LOSS = 20  # frames, one a millisecond: this machine has other work too


def run_demo(document: Document, pool: PoolState, file: Path, name: str, say: Say) -> bool:
    """Start, measure, migrate, repair, take down. Whether all was as the document says. Raises LabError."""
    began = time.monotonic()
    if os.geteuid() != 0:
        raise LabUnsupported("the demo needs root, to make network namespaces: run it with sudo")
    netns.check()
    with _interrupts_end_it():
        _remove_stale(name, say)
        good = _show(document, pool, file, name, say)
    say(f"\nEverything is down again, nothing is left. {time.monotonic() - began:.1f} s in all.")
    return good


def _show(document: Document, pool: PoolState, file: Path, name: str, say: Say) -> bool:
    hosts, vms = len(pool.hosts), len(pool.vms)
    say(f"Starting the pool of {file} on this machine:")
    say(f"  {hosts} hosts: each a network namespace with its own ovsdb-server, ovs-vswitchd and vnet agent")
    say("  the pool database (ovsdb-server) and the vnet controller")
    say(f"  {vms} VMs: each a network namespace with an interface per VIF")
    began = time.monotonic()
    with Lab.up(pool, name=name, driver=Driver.NETNS, daemons=True, document=str(file.resolve())) as lab:
        lab.start_all()
        say(f"  up, every VIF ready, in {time.monotonic() - began:.1f} s\n")
        _show_tables(lab, say)
        good = _show_matrix(lab, say)
        good &= _show_expectations(lab, document, say)
        good &= _show_migration(lab, say)
        good &= _show_repair(lab, say)
        say("\nTaking it down")
    return good


# -- hosts, networks, VMs


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Text columns, each as wide as its widest cell."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [heads, *rows]
    ]


def _show_tables(lab: Lab, say: Say) -> None:
    spec = lab.spec
    hosts = [
        [host.name, host.address or "-", ", ".join(f"{u.name} ({' '.join(u.links)})" for u in host.uplinks) or "-"]
        for host in spec.hosts
    ]
    networks = [
        [net.name, net.type.value, _number(net.tag, net.key), str(net.mtu), ", ".join(sorted(net.hosts)) or "all hosts"]
        for net in spec.networks
    ]
    vms = [
        [guest.name if vif is guest.vifs[0] else "", guest.host or "-", vif.network, vif.mac, " ".join(vif.addresses)]
        for guest in spec.guests
        for vif in guest.vifs
    ]
    for heads, rows in (
        (["HOST", "VTEP", "UPLINKS"], hosts),
        (["NETWORK", "TYPE", "TAG/VNI/KEY", "MTU", "WHERE"], networks),
        (["VM", "HOST", "NETWORK", "MAC", "ADDRESS"], vms),
    ):
        for line in table(heads, rows):
            say(line)
        say("")


def _number(tag: int | None, key: int | None) -> str:
    if tag is not None:
        return str(tag) if tag else "untagged"
    return "-" if key is None else str(key)


# -- reachability


def _show_matrix(lab: Lab, say: Say) -> bool:
    matrix, should = measure(lab), expected(lab)
    wrong = [pair for pair in should if matrix.reaches(pair) != should[pair] or matrix.reached[pair] is Reached.DOUBLED]
    say(f"Reachability: a frame from every VIF to every other ({len(should)} frames; ● arrived once, · did not)")
    for line in _grid(matrix, set(wrong)):
        say(line)
    for source, to in wrong:
        say(f"  WRONG: {source} to {to}: {matrix.reached[source, to].value}, should be {should[source, to]}")
    say(f"  {len(should) - len(wrong)} of {len(should)} as networks and security groups say\n")
    return not wrong


def _grid(matrix: Matrix, wrong: set[Pair]) -> Iterator[str]:
    width = max(len(name) for name in matrix.vifs)
    yield f"  {'from':<{width}}     to " + " ".join(f"{i:2}" for i in range(1, len(matrix.vifs) + 1))
    for number, source in enumerate(matrix.vifs, 1):
        cells = [
            " -" if source == to else f"{'!' if (source, to) in wrong else ' '}{SYMBOLS[matrix.reached[source, to]]}"
            for to in matrix.vifs
        ]
        yield f"  {source:<{width}} {number:2}     " + " ".join(cells)


def _show_expectations(lab: Lab, document: Document, say: Say) -> bool:
    if not document.expectations:
        return True
    say("Expectations of the document, tried with packets")
    results = check(lab, document)
    for result in results:
        say(f"  {'ok   ' if result.holds else 'WRONG'} {result.name}" + (f": {result.reason}" if result.reason else ""))
    say("")
    return all(result.holds for result in results)


# -- a migration


def _show_migration(lab: Lab, say: Say) -> bool:
    chosen = pick_migration(lab.spec)
    if chosen is None:
        say("No VM could migrate: none has a peer on another host")
        return True
    guest, vif, sender, to = chosen
    source = guest.host
    say(f"A live migration: {guest.name} goes from {source} to {to}, with a frame every millisecond from {sender.vm}")
    with lab.stream(lab.label(sender), lab.label(vif)) as stream:
        time.sleep(STREAM_LEAD_S)
        began = time.monotonic()
        lab.migrate(guest.name, to)
        took = time.monotonic() - began
        time.sleep(STREAM_LEAD_S)
    got = stream.report.at(lab.label(vif))
    say(f"  {len(stream.report.sent)} frames sent; {cost(got)}; the migration took {took * 1000:.0f} ms\n")
    return got.lost <= ACCEPTABLE_LOSS


def cost(got: Received) -> str:
    """The frames that a stream lost or doubled, as a sentence."""
    return f"{got.lost} lost, {got.duplicated} doubled, longest silence {got.worst_gap_ms:.1f} ms"


def pick_migration(spec: Spec) -> tuple[Guest, Vif, Vif, str] | None:
    """A VM that can migrate, its VIF, a VIF on another host that sends to it, and a destination: if it can be, a third host."""
    for guest in spec.guests:
        if guest.host is None or len(guest.vifs) != 1:
            continue
        vif, network = guest.vifs[0], spec.network(guest.vifs[0].network)
        if network.carrier.way is not Way.TUNNEL:
            continue
        peers = [
            g for g in spec.guests if g.host not in (None, guest.host) and any(v.network == vif.network for v in g.vifs)
        ]
        places = [h.name for h in spec.hosts if h.name != guest.host and network.on(h.name)]
        if peers and places:
            sender = next(v for v in peers[0].vifs if v.network == vif.network)
            places.sort(key=lambda name: name == peers[0].host)
            return guest, vif, sender, places[0]
    return None


# -- a repair


def _show_repair(lab: Lab, say: Say) -> bool:
    chosen = pick_migration(lab.spec)
    if chosen is None:
        return True
    guest, vif, sender, _ = chosen
    host = sender.host or lab.location(sender.vm or "")
    if host is None:
        return True
    say(f"Somebody breaks {host} by hand")
    ovs = lab.ovs(host)
    flows = _flows(lab, host)
    ovs.ofctl("del-flows", "br-int", f"dl_dst={vif.mac}")
    gone = len(flows) - len(_flows(lab, host))
    took = _until(lambda: _flows(lab, host) == flows)
    good = took is not None
    say(f"  ovs-ofctl del-flows br-int dl_dst={vif.mac}: {gone or 'some'} flows, {_back(took)}")
    encapsulation = lab.spec.network(vif.network).carrier.encapsulation
    if encapsulation is None:
        return good
    port = encapsulation.device
    ovs.vsctl("del-port", "br-int", port)
    pair = (lab.label(sender), lab.label(vif))
    took = _until(lambda: measure(lab, [sender, vif]).reaches(pair))
    good &= took is not None
    say(f"  ovs-vsctl del-port {port}: {_back(took)}, and {sender.vm} reaches {guest.name} again")
    return good


def _back(took_s: float | None) -> str:
    return "NOT put back" if took_s is None else f"put back within {took_s * 1000:.0f} ms"


def _flows(lab: Lab, host: str) -> set[str]:
    text = lab.ovs(host).ofctl("dump-flows", "br-int", "--no-stats")
    return {line.strip() for line in text.splitlines() if "cookie" in line}


def _until(condition: Callable[[], bool]) -> float | None:
    """Seconds until the condition holds; None if it does not."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > REPAIR_TIMEOUT_S:
            return None
    return time.monotonic() - began


# -- the end, however it comes


def _remove_stale(name: str, say: Say) -> None:
    """Take down a demo whose process was killed."""
    if name not in labs():
        return
    pid, started = Spec.read(name).owner
    if pid == os.getpid() or (started and start_time(pid) == started):
        raise LabError(f"lab {name!r} is up: 'vnet lab down --name {name}', or choose another --name")
    say(f"Removing lab {name}, which a killed demo left")
    remove(name)


@contextmanager
def _interrupts_end_it() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, so that it takes itself down."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
