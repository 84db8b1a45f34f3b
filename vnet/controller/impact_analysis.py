"""What a plan would do to who reaches whom, asked of the twin of the pool before and after. Pure, and never fast: call it in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vnet import api
from vnet.api.errors import Conflict
from vnet.objects import PoolState
from vnet.topology import Document

if TYPE_CHECKING:
    from vnet.verify.expectations import Result


def expectations(document: Document, before: PoolState, after: PoolState) -> list[api.Expected]:
    """Each of the document's expectations: whether it would hold, and for one that would not, whether it holds now."""
    if not document.expectations:
        return []
    from vnet.sim import SimPool  # noqa: PLC0415 - a document without expectations need not pay for it
    from vnet.sim.bindings import settled  # noqa: PLC0415
    from vnet.verify.expectations import check  # noqa: PLC0415

    then = check(SimPool.of(settled(after)), document)
    now = {} if all(result.holds for result in then) else {r.name: r.holds for r in check(SimPool.of(before), document)}
    return [as_expected(result, held=result.holds or now[result.name]) for result in then]


def as_expected(result: Result, *, held: bool) -> api.Expected:
    """A result for the API. held: whether it holds now."""
    return api.Expected(
        name=result.name,
        where=result.position,
        holds=result.holds,
        held=held,
        why=result.reason,
        trace=result.trace.render() if result.trace is not None else "",
        asked=result.asked,
    )


def refuse_broken(expected: list[api.Expected]) -> None:
    """Raises Conflict if an expectation that holds now would be broken."""
    broken = [one for one in expected if one.held and not one.holds]
    if broken:
        names = "; ".join(f"{one.where}: {one.name}: {one.why}" for one in broken)
        raise Conflict(
            "breaks-expectation", f"this would break what holds now: {names}. To do it all the same: force", "force"
        )


def reachability(before: PoolState, after: PoolState) -> list[api.Difference]:
    """Who gains and who loses a way to whom, by ping and on each TCP and UDP port."""
    from vnet.sim.bindings import settled  # noqa: PLC0415
    from vnet.verify.differential_reachability import differences  # noqa: PLC0415

    return [
        api.Difference(
            gained=one.gained,
            sources=list(one.sources),
            targets=list(one.targets),
            what=list(one.services),
            text=str(one),
        )
        for one in differences(before, settled(after))
    ]
