"""Where a twin comes from on the command line: a document, or the pool that runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import say
from vnet.cli.remote import connected
from vnet.cli.topology import invalid, read
from vnet.objects import Protocol
from vnet.topology import Document, TopologyErrors, load

if TYPE_CHECKING:
    from vnet.sim import SimPool


def document_of(file: str) -> Document:
    """A valid document; raises CommandError with all that is wrong with it."""
    data, name = read(file)
    try:
        return load(data, name)
    except TopologyErrors as errors:
        raise invalid(errors) from None


def twin_of(document: Document) -> SimPool:
    """The twin of a document."""
    from vnet.sim import SimPool  # noqa: PLC0415 - help need not pay for it

    try:
        return SimPool.from_document(document)
    except TopologyErrors as errors:
        raise invalid(errors) from None


def running_twin() -> SimPool:
    """The twin of the pool that runs: what its controller says it should be, with every VIF where it is now."""
    from vnet.cli.live_pool import twin_of_running  # noqa: PLC0415

    with connected() as client:
        return twin_of_running(client)


def twin_of_past(at: str, *ends: str | None) -> SimPool:
    """The twin of the pool as it was. ends: VIFs and VMs; where it is not known where they ran, that is told."""
    from vnet.cli.past_twin import past_twin  # noqa: PLC0415

    with connected() as client:
        pool, guessed = past_twin(client, at)
    for id in sorted(guessed):
        if {id, pool.state.vifs[id].vm} & set(ends):
            say(f"where VIF {id} ran then is not known: taken to be on {pool.runs_on(pool.state.vifs[id])}")
    return pool


def planned_twin(document: Document) -> SimPool:
    """The twin of the pool as it would be once a document was applied to it and its agents had followed."""
    from vnet.cli.live_pool import running_state  # noqa: PLC0415
    from vnet.plan import desired_state  # noqa: PLC0415
    from vnet.sim import SimPool  # noqa: PLC0415
    from vnet.sim.bindings import settled  # noqa: PLC0415

    with connected() as client:
        state, _ = running_state(client)
    try:
        planned = SimPool.of(settled(desired_state(document, state)))
    except TopologyErrors as errors:
        raise invalid(errors) from None
    planned.document = document
    return planned


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the simulator raises into what the command exits with."""
    from ovsctl.datapath import DatapathError  # noqa: PLC0415
    from vnet.sim import SimError  # noqa: PLC0415

    try:
        yield
    except (SimError, DatapathError) as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from None


def protocol_of(tcp: int | None, udp: int | None) -> tuple[Protocol, int]:
    """What --tcp, --udp or neither ask for."""
    if tcp is not None:
        return Protocol.TCP, tcp
    return (Protocol.UDP, udp) if udp is not None else (Protocol.ICMP, 0)
