"""Grants locked guests the link-local addresses that they choose, first come, first served.

One rule: a choice is part of this host's binding of the VIF. So it holds here at once, the other hosts hear of it with the binding, it outlives
this agent, and it goes where the VIF goes (docs/adr/0015-link-locals-are-chosen.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from socket import AF_INET6, inet_ntop
from typing import Final

from ovsctl.openflow import Output, ReservedPort
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.pool_replica import PoolReplica
from vnet.agent.reconciler import Revisions
from vnet.agent.shell import Shell
from vnet.agent.status_writer import StatusWriter
from vnet.objects import Binding, Location, Vif
from vnet.objects.identity import own_identities
from vnet.objects.link_local import (
    MAX_LINK_LOCALS,
    LinkLocal,
    Neighbour,
    chosen,
    comes_before,
    is_link_local,
    link_local,
    mac_of,
    owner,
    with_another,
)
from vnet.util.frames import is_detection, neighbor_advertisement, used_address

# A guest may choose so many addresses at once, and then one in a while: each is written to the pool, and looked for among its network's VIFs.
AT_ONCE, REFILL_MS = MAX_LINK_LOCALS, 10_000
REMEMBERED_MS = 300_000  # a refusal, after the last frame that was refused


@dataclass(frozen=True, slots=True)
class Refusal:
    """Frames of a VIF that were refused. holder: the VIF whose address it was; "" where the VIF chose too many."""

    address: str
    holder: str
    frames: int = 0
    last_ms: int = 0

    @property
    def problem(self) -> str:
        reason = f"which VIF {self.holder} has" if self.holder else "one more than it may in so short a time"
        return f"its guest chose {self.address}, {reason}: {self.frames} frames dropped"


class LinkLocals:
    """Grants and takes back. What VIFs here have chosen is indexed by network and by address, or the MAC that gives it."""

    def __init__(
        self, pool: PoolReplica, status: StatusWriter, flows: BridgeFlows, revisions: Revisions, shell: Shell,
        now_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._pool: Final = pool
        self._status: Final = status
        self._flows: Final = flows
        self._revisions: Final = revisions
        self._shell: Final = shell
        self._now_ms: Final = now_ms
        self._refused: Final[dict[str, Refusal]] = {}  # by VIF
        self._budgets: Final[dict[str, tuple[float, int]]] = {}  # how many more a VIF may choose, and at what time
        self._granted: Final[
            dict[tuple[str, str], int]
        ] = {}  # VIF and address: the revision that lets it send from there
        self._lost: Final[dict[str, set[str]]] = {}  # by VIF: what is another's by now
        self._held: Final[dict[tuple[str, str], tuple[LinkLocal, ...]]] = {}  # by network and VIF
        self._holders: Final[
            dict[tuple[str, str], dict[str, str]]
        ] = {}  # by network and address or MAC: address by VIF

    @property
    def problems(self) -> dict[str, str]:
        """The refusals of late, by VIF."""
        if not self._refused:
            return {}
        oldest = self._now_ms() - REMEMBERED_MS
        for vif in [vif for vif, refusal in self._refused.items() if refusal.last_ms < oldest]:
            del self._refused[vif]
        return {vif: refusal.problem for vif, refusal in self._refused.items()}

    # Chosen

    def frame_from(self, vif: Vif, ofport: int, frame: bytes) -> None:
        """Takes a frame of a VIF here that uses a link-local address which is not its own in the switch: grants the address, and sends the
        frame on once it is."""
        octets = used_address(frame)
        mine = self._mine(vif.network, vif.id)
        if octets is None or not is_link_local(octets) or mine is None:
            return
        address = inet_ntop(AF_INET6, octets)
        if address == link_local(vif.mac) or address in vif.addresses:
            return  # something else of the frame is not the VIF's
        if all(entry.address != address for entry in mine.link_locals):
            if not self._may_look(vif, address):
                self._refuse(vif, address, "")
                return
            holder = self._holder(vif, address)
            if holder is not None:
                self._refuse(vif, address, holder.vif)
                if is_detection(frame):
                    self._shell.spawn(self._defend(ofport, holder, address))
                return
            self._grant(vif, mine, address)
        if self._granted.get((vif.id, address), 0) > self._revisions.flows:
            self._shell.spawn(self._send_on(ofport, frame))

    def _known_holder(self, vif: Vif, address: str) -> Neighbour | None:
        """The VIF that had an address when it was last refused, if it still has it: the others need not be looked through again."""
        known = self._refused.get(vif.id)
        if known is None or known.address != address:
            return None
        return owner(address, vif.id, self._pool.compiler.view.bindings_of(vif.network, known.holder))

    def _holder(self, vif: Vif, address: str) -> Neighbour | None:
        known = self._known_holder(vif, address)
        return known or owner(address, vif.id, self._pool.compiler.view.bindings(vif.network))

    def _grant(self, vif: Vif, mine: Binding, address: str) -> None:
        self._refused.pop(vif.id, None)
        self._granted[vif.id, address] = self._revisions.newest + 1
        wanted = with_another(mine.link_locals, address, self._now_ms())
        self._pool.set_overlay(replace(mine, link_locals=wanted))
        self._pool.touch([vif.id])
        self._status.event("link-local", f"its guest chose {address}", mine)
        self._shell.wake()

    async def _defend(self, ofport: int, holder: Neighbour, address: str) -> None:
        """Answers duplicate address detection as the holder would, whom the question does not reach: the guest takes another address, or
        none, instead of one that nobody hears it by (RFC 4862 §5.4.4)."""
        answer = neighbor_advertisement(holder.mac, address, router=False)
        await self._flows.send_packet(answer, ofport, (Output(ReservedPort.IN_PORT),))

    async def _send_on(self, ofport: int, frame: bytes) -> None:
        await self._shell.programmed()
        await self._flows.send_packet(frame, ofport)

    def _may_look(self, vif: Vif, address: str) -> bool:
        """Whether a VIF may choose, or ask, once more: takes one from its budget, which fills by one in REFILL_MS."""
        if self._known_holder(vif, address) is not None:
            return True
        now_ms = self._now_ms()
        left, at_ms = self._budgets.get(vif.id, (AT_ONCE, now_ms))
        left = min(float(AT_ONCE), left + (now_ms - at_ms) / REFILL_MS)
        self._budgets[vif.id] = (left - 1 if left >= 1 else left, now_ms)
        return left >= 1

    def _refuse(self, vif: Vif, address: str, holder: str) -> None:
        known = self._refused.get(vif.id)
        again = known is not None and (known.address, known.holder) == (address, holder)
        frames = known.frames + 1 if known is not None and again else 1
        refusal = self._refused[vif.id] = Refusal(address, holder, frames, self._now_ms())
        if not again:
            self._status.event("problem", refusal.problem, vif=vif.id)

    # Settled, in a turn

    def settle(self, touched: Iterable[tuple[str, str]]) -> None:
        """Brings this host's bindings of these VIFs, given as (network, VIF), to what the VIFs have chosen by all their bindings; takes
        back what is another VIF's."""
        vifs = sorted(touched)
        concerned = [(network, vif) for network, vif in vifs if self._concerns(network, vif)]
        for network, vif in concerned:
            self._index(network, vif)
        if self._holders:
            for network, vif in vifs:
                self._contest(network, vif)
        for network, vif in concerned:
            self._bring(network, vif)

    def _concerns(self, network: str, vif: str) -> bool:
        """Whether a VIF has chosen an address, or had, or has asked for one."""
        if (network, vif) in self._held or vif in self._lost or vif in self._budgets:
            return True
        return bool([of for of in self._pool.compiler.view.bindings_of(network, vif) if of.link_locals])

    def _mine(self, network: str, vif: str) -> Binding | None:
        return self._pool.compiler.view.binding(network, vif, self._pool.me)

    def _index(self, network: str, vif: str) -> None:
        mine = self._mine(network, vif)
        new, old = mine.link_locals if mine is not None else (), self._held.get((network, vif), ())
        if mine is None:
            self._budgets.pop(vif, None)
        if new == old:
            return
        for entry in old:
            for key in _keys(entry.address):
                holders = self._holders[network, key]
                holders.pop(vif, None)
                if not holders:
                    del self._holders[network, key]
        for address in {entry.address for entry in old} - {entry.address for entry in new}:
            self._granted.pop((vif, address), None)
        for entry in new:
            for key in _keys(entry.address):
                self._holders.setdefault((network, key), {})[vif] = entry.address
        self._held[network, vif] = new
        if not new:
            del self._held[network, vif]

    def _contest(self, network: str, vif: str) -> None:
        """Takes back what VIFs here have chosen and this one has."""
        for binding in self._pool.compiler.view.bindings_of(network, vif):
            declared = (key for of in own_identities(binding) for key in (of.mac, *of.addresses))
            for key in (*declared, *(entry.address for entry in binding.link_locals)):
                for other, address in list(self._holders.get((network, key), {}).items()):
                    mine = self._mine(network, other)
                    if other != vif and mine is not None and not comes_before(address, mine, binding):
                        self._take_back(mine, address, vif)

    def _take_back(self, mine: Binding, address: str, holder: str) -> None:
        self._lost.setdefault(mine.vif, set()).add(address)
        refusal = self._refused[mine.vif] = Refusal(address, holder, last_ms=self._now_ms())
        self._status.event("problem", refusal.problem, mine)
        self._bring(mine.network, mine.vif)

    def _bring(self, network: str, vif: str) -> None:
        bindings, lost = self._pool.compiler.view.bindings_of(network, vif), self._lost.get(vif, set())
        if not lost and not any(binding.link_locals for binding in bindings):
            return
        mine = self._mine(network, vif)
        if mine is None or mine in Location.of(bindings).superseded:
            return
        all_chosen = chosen(bindings)
        lost &= {entry.address for entry in all_chosen}
        if not lost:
            self._lost.pop(vif, None)
        wanted = tuple(entry for entry in all_chosen if entry.address not in lost)
        if wanted != mine.link_locals:
            self._pool.set_overlay(replace(mine, link_locals=wanted))
            self._index(network, vif)


def _keys(address: str) -> tuple[str, ...]:
    """What an address is found by: itself, and the MAC that gives it."""
    mac = mac_of(address)
    return (address,) if mac is None else (address, mac)
