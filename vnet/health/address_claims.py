"""Which addresses two stations of a VLAN have, by what stations claim. Pure, but for the clock that it is given.

One rule: an ARP packet from an address, or neighbour discovery for it, claims it for the MAC that it names (RFC 5227 §2.4, RFC 4861 §7.2). An address of a VIF goes with MACs
that are known: one claim by another is a conflict. Of other addresses nobody knows whose they are: there two MACs have to claim in turns, or answer one question, as they do not where one takes over from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from vnet.db.health import StatedAddress
from vnet.util.frames import AddressClaim

KEPT_S: Final = 300.0  # after the last claim: ARP caches last for minutes
ANSWER_S: Final = 1.0  # within which answers to one question come: who has none asks again after it (RFC 1122 §2.3.2.1)
MAX_RIVALS: Final = 4  # MACs that are remembered of an address, those that came first: a station may make up any number


Place = tuple[str, int | None]  # an address and a VLAN


class AddressHolder(NamedTuple):
    """The VIF that has an address, with the MACs that may claim it, that of the address first; of the host itself and of gateways neither is known."""

    vif: str = ""
    macs: tuple[str, ...] = ()


class ClaimedAt(NamedTuple):
    """An uplink's address on one VLAN."""

    uplink: str
    tag: int
    address: str


@dataclass(slots=True)
class Claimants:
    """The MACs that claim an address, each with when it was heard last. answered: who answered whom last, with when. both_s: when two were there last: one was heard
    again after another one, or both answered one question."""

    heard: dict[str, float]
    answered: tuple[str, str, float] = ("", "", 0.0)
    both_s: float | None = None


class AddressClaims:
    """clock_s: seconds that only grow."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s: Final = clock_s
        self._watched: Final[dict[str, Mapping[Place, AddressHolder]]] = {}  # by uplink
        self._claimants: Final[dict[ClaimedAt, Claimants]] = {}

    def watch(self, uplink: str, addresses: Mapping[Place, AddressHolder]) -> None:
        """These are an uplink's from now on, each with the VLAN or, with None, on all."""
        self._watched[uplink] = addresses
        for claim in [it for it in self._claimants if it.uplink == uplink and self._find(it) is None]:
            del self._claimants[claim]

    def hear(self, uplink: str, claim: AddressClaim) -> None:
        """A frame that came by an uplink claimed an address."""
        at, mac = ClaimedAt(uplink, claim.tag, claim.address), claim.mac
        holder = self._find(at)
        if holder is None or mac in holder.macs:
            return
        now_s = self._clock_s()
        known = self._claimants.setdefault(at, Claimants({}))
        for gone in [it for it, at_s in known.heard.items() if now_s - at_s >= KEPT_S]:
            del known.heard[gone]
        before_s = known.heard.get(mac)
        if before_s is not None and any(at_s > before_s for at_s in known.heard.values()):
            known.both_s = now_s
        if claim.asker:
            asker, other, answered_s = known.answered
            if asker == claim.asker and other != mac and now_s - answered_s < ANSWER_S:
                known.both_s = now_s
            known.answered = claim.asker, mac, now_s
        if before_s is not None or len(known.heard) < MAX_RIVALS:
            known.heard[mac] = now_s

    def _find(self, claim: ClaimedAt) -> AddressHolder | None:
        watched = self._watched.get(claim.uplink, {})
        return watched.get((claim.address, claim.tag)) or watched.get((claim.address, None))

    def stated(self) -> Iterator[StatedAddress]:
        """The conflicts of late."""
        since_s = self._clock_s() - KEPT_S
        for claim, known in sorted(self._claimants.items()):
            holder = self._find(claim)
            late = sorted(mac for mac, at_s in known.heard.items() if at_s > since_s)
            if holder is None or not late:
                continue
            both = known.both_s is not None and known.both_s > since_s and len(late) > 1
            if holder.macs or both:
                yield StatedAddress(claim.uplink, claim.address, claim.tag, (*holder.macs[:1], *late), holder.vif)
