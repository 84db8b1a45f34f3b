"""Hears by IGMP and MLD which multicast groups the VIFs here listen to, and asks them (RFC 4541).

One rule: what is known is part of this host's binding of the VIF, as the MACs behind it are. Each host asks its own VIFs and hears their answers: no host
depends on another's queries, so none is elected, and a dead agent costs no other host a group.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Final, NamedTuple

from ovsctl.openflow import Flow, Output
from ovsctl.openflow.fields import ReservedPort
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.pool_replica import PoolReplica
from vnet.agent.shell import Shell
from vnet.compile import Category, FlowSource, VifRole
from vnet.compile.multicast import LEASE_S
from vnet.objects import Network, Vif
from vnet.objects.heard_groups import HeardGroups, asked_again
from vnet.objects.link_local import link_local
from vnet.objects.multicast import (
    LAST_QUERY_MS,
    MAX_GROUPS,
    MAX_GROUPS_OF_NETWORK,
    is_flooded,
    listening_of,
    response_ms,
)
from vnet.util.membership_frames import membership, query_v4, query_v6

TICK_S = 0.25
UNUSED_S = 1.0  # between two looks while no network here asks for it
RENEWED_MS = 1000 * LEASE_S // 3  # between two times that the switch is told that somebody listens
LOOK_AGAIN_MS = 5_000  # at each VIF, though nothing is known to be due
NEW_MS, SOON_MS = 3_000, 500  # a VIF is new that came so short a time ago; it answers within the second
PORTS_OF_A_MESSAGE = 500  # that one query goes to


class HeardVif(NamedTuple):
    """A VIF here with the network that it was heard on."""

    network: str
    groups: HeardGroups


class MulticastSnooping:
    """Hears, asks, and forgets. problems: of VIFs here, by id, and of networks."""

    def __init__(self, pool: PoolReplica, flows: BridgeFlows, shell: Shell, now_ms: Callable[[], int]) -> None:
        self._pool: Final = pool
        self._flows: Final = flows
        self._shell: Final = shell
        self._now_ms: Final = now_ms
        self._heard: Final[dict[str, HeardVif]] = {}  # by VIF
        self._due: Final[dict[str, int]] = {}  # when a VIF is looked at next; one that is not here, at once
        self._snooping: Final[dict[str, Network]] = {}  # as they were at the last look
        self._renewed_ms = 0

    @property
    def problems(self) -> dict[str, str]:
        if not self._heard:
            return {}
        now_ms, view = self._now_ms(), self._pool.compiler.view
        vifs = {
            f"vif {vif}": f"listens to more than {MAX_GROUPS} multicast groups: it gets every group of network {heard.network}"
            for vif, heard in self._heard.items()
            if now_ms < heard.groups.every_until
        }
        crowded = sorted(name for name in self._snooping if view.crowded(name))
        text = f"its VIFs listen to more than {MAX_GROUPS_OF_NETWORK} multicast groups: its multicast is flooded"
        return vifs | {f"network {network}": text for network in crowded}

    def settle(self, touched: Iterable[tuple[str, str]]) -> None:
        """Has these VIFs, given as (network, VIF), looked at: something of them has changed."""
        for _, vif in touched:
            self._due.pop(vif, None)

    def frame_from(self, vif: Vif, frame: bytes) -> None:
        """Takes a frame of a VIF here that may say what it listens to."""
        network = self._network(vif)
        if network is None:
            return
        report, now_ms = membership(frame), self._now_ms()
        after = self._groups(vif, network, now_ms).after(report, now_ms, network.interval_s, vif)
        self._heard[vif.id] = HeardVif(network.name, after)
        self._due.pop(vif.id, None)
        if self._publish(vif):
            self._shell.wake()
        asked = [group for group in asked_again(report, vif) if not is_flooded(group)]
        if asked:
            ofport = self._pool.compiler.view.ports[vif.id]
            self._shell.spawn(self._ask(network, [ofport], asked[:MAX_GROUPS]))

    async def run(self) -> None:
        """Asks and forgets for ever."""
        while True:
            await self.look()
            await asyncio.sleep(TICK_S if self._snooping else UNUSED_S)

    async def look(self) -> None:
        """Asks the VIFs that are to be asked by now, and gives up what was not reported for long, or is asked for no more."""
        view, now_ms, changed = self._pool.compiler.view, self._now_ms(), False
        snooping = {name: network for name, network in view.networks.items() if network.multicast_snooping}
        if not snooping and not self._snooping:
            return
        if snooping != self._snooping:
            self._snooping.clear()
            self._snooping.update(snooping)
            self._due.clear()
        general, special = defaultdict[tuple[str, bool], list[int]](list), list[tuple[str, int, tuple[str, ...]]]()
        for gone in self._heard.keys() - view.ports.keys():
            del self._heard[gone]
        for id, ofport in list(view.ports.items()):
            if now_ms < self._due.get(id, 0):
                continue
            self._due[id] = now_ms + LOOK_AGAIN_MS
            vif = view.vifs.get(id)
            network = self._network(vif) if vif is not None else None
            if vif is None or network is None:
                self._heard.pop(id, None)
                changed |= vif is not None and self._forget(vif)
                continue
            groups = self._groups(vif, network, now_ms)
            if now_ms >= groups.ask_at:
                general[network.name, self._is_new(vif, groups)].append(ofport)
                groups = groups.once_asked(now_ms, network.interval_s)
            if expiring := groups.expiring(now_ms):
                special.append((network.name, ofport, expiring))
            self._heard[id] = HeardVif(network.name, groups.aged(now_ms))
            self._due[id] = min(groups.due(now_ms), now_ms + LOOK_AGAIN_MS)
            changed |= self._publish(vif)
        if changed:
            self._shell.wake()
        self._renew(snooping, now_ms)
        for (name, is_new), ofports in general.items():
            await self._ask(snooping[name], ofports, soon=is_new)
        for name, ofport, expiring in special:
            await self._ask(snooping[name], [ofport], expiring)

    def _renew(self, networks: Iterable[str], now_ms: int) -> None:
        """Has the switch go on for a while by what is heard: were nobody to listen any more, it would flood."""
        if now_ms < self._renewed_ms + RENEWED_MS:
            return
        self._renewed_ms = now_ms
        known = self._pool.compiler.flows
        sources = (known.get(FlowSource(Category.MULTICAST, name), ()) for name in networks)
        leases = [
            entry.key for entries in sources for entry in entries if isinstance(entry, Flow) and entry.hard_timeout
        ]
        self._flows.renew(leases)

    def _groups(self, vif: Vif, network: Network, now_ms: int) -> HeardGroups:
        """What was heard of a VIF on its network; of one that has just come, what its bindings say."""
        heard = self._heard.get(vif.id)
        if heard is not None and heard.network == network.name:
            return heard.groups
        known = listening_of(self._pool.compiler.view.bindings_of(network.name, vif.id))
        return HeardGroups.new(known, now_ms, network.interval_s)

    def _network(self, vif: Vif) -> Network | None:
        """The network of a VIF that runs here and is asked for its groups; None of another VIF. A trunk's tags are networks of their own."""
        view = self._pool.compiler.view
        network = view.networks.get(vif.network)
        if network is None or not network.multicast_snooping or vif.trunk is not None:
            return None
        mine = view.binding(vif.network, vif.id, self._pool.me)
        runs = mine is not None and not mine.state.moving and view.role(vif) is VifRole.ACTIVE
        return network if runs and view.plugged(vif.id) is not None else None

    def _is_new(self, vif: Vif, groups: HeardGroups) -> bool:
        """Whether a VIF has just come. It is to answer soon: switches of the physical network learn from its reports where it is by now."""
        mine = self._pool.compiler.view.binding(vif.network, vif.id, self._pool.me)
        return groups.asked == 0 and mine is not None and self._now_ms() - mine.since < NEW_MS

    def _publish(self, vif: Vif) -> bool:
        """Has the binding of a VIF say what is known. Whether that is news."""
        mine = self._pool.compiler.view.binding(vif.network, vif.id, self._pool.me)
        listening = self._heard[vif.id].groups.listening(self._now_ms())
        if mine is None or mine.listening == listening:
            return False
        self._pool.set_overlay(replace(mine, listening=listening))
        self._pool.touch([vif.id])
        return True

    def _forget(self, vif: Vif) -> bool:
        """On a network that does not snoop nothing is known, so that it begins with all once it does."""
        view = self._pool.compiler.view
        network, mine = view.networks.get(vif.network), view.binding(vif.network, vif.id, self._pool.me)
        if (
            network is None
            or mine is None
            or mine.listening is None
            or (network.multicast_snooping and vif.trunk is None)
        ):
            return False
        self._pool.set_overlay(replace(mine, listening=None))
        self._pool.touch([vif.id])
        return True

    async def _ask(
        self, network: Network, ofports: Iterable[int], groups: Iterable[str] = (), *, soon: bool = False
    ) -> None:
        """Sends queries out of these ports, without groups general ones. soon: to be answered within SOON_MS."""
        pool = self._pool.compiler.view.pool
        mac = querier_mac(pool.id if pool is not None else "", network.number)
        frames, out = (
            list(_queries(network, mac, groups, SOON_MS if soon else response_ms(network.interval_s))),
            [Output(port) for port in ofports],
        )
        for first in range(0, len(out), PORTS_OF_A_MESSAGE):
            for frame in frames:
                await self._flows.send_packet(frame, ReservedPort.CONTROLLER, out[first : first + PORTS_OF_A_MESSAGE])


def _queries(network: Network, mac: str, groups: Iterable[str], within_ms: int) -> Iterator[bytes]:
    source, interval_s = network.querier or "0.0.0.0", network.interval_s
    about = list(groups)
    if not about:
        yield query_v4(mac, source, within_ms, interval_s)
        yield query_v6(mac, link_local(mac), within_ms, interval_s)
    for group in about:
        if ":" in group:
            yield query_v6(mac, link_local(mac), LAST_QUERY_MS // 2, interval_s, group)
        else:
            yield query_v4(mac, source, LAST_QUERY_MS // 2, interval_s, group)


def querier_mac(pool: str, network: int) -> str:
    """The MAC that queries on a network come from: on every host the same. Its link-local address is their source in IPv6."""
    digest = blake2b(f"querier {pool} {network}".encode(), digest_size=5).digest()
    return (b"\x02" + digest).hex(":")
