"""Watches for stations of the physical network that claim an address which a VIF here has, the host itself, or a gateway that the host was asked to look at.

One rule: nothing is asked and no frame is taken out of its way. The switch copies claims of just these addresses, so what others claim costs the host nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from ovsctl.openflow.messages import PacketIn
from vnet.agent.reconciler import Revisions
from vnet.agent.shell import Shell
from vnet.agent.uplink_flows import UplinkFlows
from vnet.compile import HostView, VifRole, WatchedAddress
from vnet.db.health import MAX_STATED_ADDRESSES, StatedAddress
from vnet.health.address_claims import AddressClaims, AddressHolder, Place
from vnet.objects import Vif
from vnet.objects.identity import macs_of, own_identities, virtual_identities
from vnet.util.frames import claimed_address

PERIOD_S = 2.0  # between two looks at what is to be watched


class AddressWatch:
    """Has claims heard, and remembers them."""

    def __init__(
        self, view: HostView, uplinks: UplinkFlows, revisions: Revisions, shell: Shell, claims: AddressClaims
    ) -> None:
        self._view: Final = view
        self._uplinks: Final = uplinks
        self._revisions: Final = revisions
        self._shell: Final = shell
        self._claims: Final = claims
        self._gateways: Final[dict[str, Mapping[int, Sequence[str]]]] = {}

    @property
    def stated(self) -> tuple[StatedAddress, ...]:
        """The conflicts of late."""
        return tuple(self._claims.stated())[:MAX_STATED_ADDRESSES]

    async def run(self) -> None:
        watched: dict[str, dict[Place, AddressHolder]] = {}
        revision, gateways, known = 0, dict(self._gateways), self.stated
        while True:
            if (revision, gateways) != (self._revisions.newest, self._gateways):
                revision, gateways = self._revisions.newest, dict(self._gateways)
                if (wanted := self._wanted()) != watched:
                    for uplink in watched | wanted:
                        self._claims.watch(uplink, wanted.get(uplink, {}))
                    watched = wanted
                    self._uplinks.watch({name: _to_hear(addresses) for name, addresses in watched.items()})
                    self._shell.wake()
            if self.stated != known:
                known = self.stated
                self._shell.wake()
            await asyncio.sleep(PERIOD_S)

    def ask(self, gateways: Mapping[str, Mapping[int, Sequence[str]]]) -> None:
        """From the next look on claims of these gateways are heard, by uplink and VLAN, and of no others."""
        self._gateways.clear()
        self._gateways.update(gateways)

    def _wanted(self) -> dict[str, dict[Place, AddressHolder]]:
        """By uplink the gateways, the host's own address, and those of VIFs that run here, of those that move too: they have one MAC on both hosts."""
        view, found = self._view, defaultdict[str, dict[Place, AddressHolder]](dict)
        host = view.host
        if view.pool is None or host is None:
            return {}
        for uplink in host.uplinks:
            for vlan, gateways in self._gateways.get(uplink.name, {}).items():
                found[uplink.name] |= {(gateway, vlan): AddressHolder() for gateway in gateways}
            if host.address is not None:
                found[uplink.name][host.address, None] = AddressHolder()
        for network in view.networks.values():
            if network.uplink is None or host.uplink(network.uplink) is None:
                continue
            for vif in view.local(network.name):
                if view.role(vif) is VifRole.ACTIVE:
                    found[network.uplink] |= _watched(vif, network.vlan)
        return dict(found)

    def packet_in(self, message: PacketIn, uplink: str) -> None:
        """Takes a copy of a frame that claims an address."""
        if (claim := claimed_address(message.data)) is not None:
            before = self.stated
            self._claims.hear(uplink, claim)
            if self.stated != before:
                self._shell.wake()


def _to_hear(addresses: Mapping[Place, AddressHolder]) -> list[WatchedAddress]:
    return [WatchedAddress(address, vlan, bool(holder.vif)) for (address, vlan), holder in addresses.items()]


def _watched(vif: Vif, vlan: int) -> dict[Place, AddressHolder]:
    """The addresses that are a VIF's alone. As a virtual router it may claim them by a virtual MAC too, and so may the others of that router."""
    virtual = tuple(identity.mac for identity in virtual_identities(vif))
    found: dict[Place, AddressHolder] = {}
    for identity in own_identities(vif):
        others = tuple(mac for mac in macs_of(vif) if mac != identity.mac)
        for address in identity.addresses:
            found[address, vlan] = AddressHolder(vif.id, (identity.mac, *others, *virtual))
    return found
