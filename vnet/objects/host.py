"""Hosts, and their uplinks to the physical network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, Flaw, Named, SetBy, StructOf, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import ListOf, choice
from vnet.objects.carriers import Way
from vnet.objects.devices import devices_of, uplink_bridge
from vnet.objects.enums import BondHash, BondMode, LacpTime, LldpMode, Owner
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage, plugged, some
from vnet.objects.limits import MAX_MEMBERS
from vnet.objects.words import BRIDGE_NAME, DEVICE, MTU, NAME_KIND, OWNER, UPLINK_NAME, VTEP


def _members(_: Usage, __: str, old: Uplink, new: Uplink) -> Cost:
    if old.bridge is not None or new.bridge is not None:
        return Disruption.UPLINK, "another bridge carries it"
    if old.mode is None or new.mode is None or not set(old.members) & set(new.members):
        return Disruption.UPLINK, "other NICs carry it"
    if set(old.members) - set(new.members):
        return Disruption.FLOWS, "the remaining members take over what the leaving one carried"
    return Disruption.NONE, "the bond gets a member; the others carry on"


@dataclass(frozen=True, slots=True)
class Uplink(Declared):
    """A host's way to the physical network: a NIC, several as a bond, or a bridge that has them. Its name is the same on every host."""

    NOUN: ClassVar[Noun] = Noun("uplink", "uplinks", "uplink", "Uplink", "", parent="host")
    TITLE: ClassVar[str] = "an uplink"
    ORDER: ClassVar[tuple[str, ...]] = ("mode", "members")

    name: str = attr(UPLINK_NAME, "Its name; its bridge is br-NAME, unless `bridge` names one.")
    members: tuple[str, ...] = attr(
        ListOf(DEVICE, "a list of NICs", empty="an uplink needs a NIC", most=MAX_MEMBERS, ordered=True),
        "The host's NICs, by device name. Two or more are a bond, and need `mode`.",
        default=(),
        also=("nic", "nics", "slaves", "interfaces", "ports"),
        change=_members,
    )
    mode: BondMode | None = attr(
        choice(
            "a bond mode",
            BondMode,
            {"802.3ad": "did you mean 'lacp'?", "balance-tcp": "did you mean 'lacp' with 'hash: tcpudp-ports'?"},
        ),
        "How the members of a bond share: one at a time, by source MAC, or as LACP (802.1AX) with the switch agrees.",
        default=None,
        also=("bond-mode", "bond"),
        change=(Disruption.UPLINK, "the bond is set up anew"),
    )
    lacp_time: LacpTime = attr(
        choice("an LACP time", LacpTime),
        "LACP bonds: how often the ends tell each other they live: every 30 s (slow) or every second (fast).",
        default=LacpTime.SLOW,
        change=(Disruption.NONE, "only how often LACP speaks"),
    )
    hash: BondHash = attr(
        choice("a bond hash", BondHash),
        "LACP bonds: the fields by which frames are spread over the members.",
        default=BondHash.SOURCE_MAC,
        also=("xmit-hash-policy", "hashing-algorithm"),
        change=(Disruption.FLOWS, "flows are spread anew over the members"),
    )
    mtu: int | None = attr(
        MTU,
        "MTU of the members, in bytes; left out, it stays what it is.",
        default=None,
        change=(Disruption.UPLINK, "NICs restart their link for another MTU"),
    )
    bridge: str | None = attr(
        BRIDGE_NAME,
        "Instead of `members`: a bridge of Open vSwitch that the host has, such as xenbr0. It is joined by a patch port, "
        "and stays as it is.",
        default=None,
        change=_members,
    )

    lldp: LldpMode | None = attr(
        choice("a mode of LLDP", LldpMode, {"on": "did you mean 'send'?", "receive": "left out, that is what it does"}),
        "Left out, the host hears by LLDP (802.1AB) which switch ports its NICs are at; with 'send' it also tells the switch of itself: its name, address, NICs and their MACs; with 'off' it does neither.",
        default=None,
        change=(Disruption.NONE, "only what the host and its switch tell each other of themselves"),
    )

    def flaws(self) -> Iterator[Flaw]:
        count = len(self.members)
        if self.bridge is not None:
            for field in ("members", "mode", "mtu"):
                if getattr(self, field):
                    message = f"uplink {self.name} is the bridge {self.bridge}, which is not vnet's to set up"
                    yield Flaw("bridge", field, message, f"leave out '{field}', or 'bridge'", relies_on=("bridge",))
        elif not count:
            hint = "'members' lists the host's NICs; 'bridge' names a bridge that has them already"
            yield Flaw(
                "missing-key",
                "members",
                f"uplink {self.name} has neither NICs nor a bridge",
                hint,
                relies_on=("bridge",),
            )
        if self.mode is not None and count == 1:
            hint = "a bond has two or more; for a plain NIC leave out 'mode'"
            yield Flaw("bond", "members", f"bond {self.name} has one member", hint)
        if self.mode is None and count > 1:
            hint = "that is a bond: 'mode' is active-backup, balance-slb or lacp"
            message = f"uplink {self.name} has {count} NICs but no 'mode'"
            yield Flaw("bond", "members", message, hint, relies_on=("mode",))
        if self.mode is not BondMode.LACP:
            for field, word, is_set in (
                ("lacp_time", "lacp-time", self.lacp_time is not LacpTime.SLOW),
                ("hash", "hash", self.hash is not BondHash.SOURCE_MAC),
            ):
                if is_set:
                    message, hint = f"'{word}' is for 'mode: lacp' only", "leave it out, or change 'mode'"
                    yield Flaw("bond", field, message, hint, relies_on=("mode",))

    @property
    def bridge_name(self) -> str:
        """The bridge of Open vSwitch that it is: one of ours, or the host's own."""
        return self.bridge or uplink_bridge(self.name)

    @property
    def links(self) -> tuple[str, ...]:
        """What carries it: its NICs, or the bridge that has them."""
        return self.members if self.bridge is None else (self.bridge,)

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        if self.bridge is not None:
            return f"bridge {self.bridge}"
        mode = f"{self.mode.value} " if self.mode is not None else ""
        mtu = f" mtu {self.mtu}" if self.mtu is not None else ""
        return f"{mode}{'+'.join(self.members)}{mtu}"

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        host = usage.hosts.get(name.split("/", 1)[0])
        used = {nic: uplink.name for uplink in (host.uplinks if host is not None else ()) for nic in uplink.members}
        if moved := [nic for nic in self.members if nic in used]:
            return Disruption.UPLINK, f"{', '.join(moved)} comes from uplink {used[moved[0]]}"
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        networks = usage.networks_of_uplink(name.split("/", 1)[0], self.name)
        return Disruption.UPLINK, f"it carries {some(networks)}" if networks else "its NIC leaves the bridge"


def _address(usage: Usage, _: str, old: Host, __: Host) -> Cost:
    count = sum(
        count
        for (network, host), count in usage.on_network_host.items()
        if host == old.name and (net := usage.networks.get(network)) is not None and net.carrier.way is Way.TUNNEL
    )
    if not count:
        return Disruption.FLOWS, "others send to its new address; no VIF on it uses a tunnel"
    return Disruption.VIF, f"tunnels to it are cut until every host has its new address: {plugged(count)}"


@dataclass(frozen=True, slots=True)
class Host(Declared):
    """A virtualization host."""

    NOUN: ClassVar[Noun] = Noun(
        "host", "hosts", "host", "Host", "hosts", doc="The pool's hosts, by name.", also=("nodes",)
    )
    TITLE: ClassVar[str] = "a host"

    name: str = attr(NAME_KIND, "Its name.", set_by=SetBy.NAME)
    address: str | None = attr(
        VTEP,
        "The host's tunnel endpoint (VTEP), IPv4 or IPv6, one family in a pool. Needed where tunnel networks may be.",
        default=None,
        also=("ip", "vtep", "tunnel-ip", "local-ip", "addresses"),
        change=_address,
    )
    uplinks: tuple[Uplink, ...] = attr(
        Named(UPLINK_NAME, StructOf(Uplink), "a map of uplinks"),
        "Ways to the physical network, by name.",
        default=(),
        also=("bonds", "nics", "pifs"),
        change=NOTHING,
        stored=False,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )

    def flaws(self) -> Iterator[Flaw]:
        used: dict[str, str] = {}
        ours: dict[str, str] = {}
        for uplink in self.uplinks:
            for device in devices_of(uplink.name, bond=uplink.mode is not None, bridge=uplink.bridge is None):
                if (other := ours.setdefault(device, uplink.name)) != uplink.name:
                    message = f"uplinks {other} and {uplink.name} of {self.name} would both have a device {device}"
                    yield Flaw("wrong-name", "uplinks", message, "another name for one of them", (uplink.name,))
        for uplink in self.uplinks:
            what = "NIC" if uplink.bridge is None else "bridge"
            for at, link in enumerate(uplink.links):
                path = (uplink.name, "members", at) if uplink.bridge is None else (uplink.name, "bridge")
                if link in ours:
                    message = f"{self.name}'s {what} {link} has the name of a device that uplink {ours[link]} gets"
                    hint = f"another name for the {what}, or for the uplink"
                    yield Flaw("wrong-name", "uplinks", message, hint, path)
                if (other := used.setdefault(link, uplink.name)) != uplink.name:
                    message = f"{self.name}'s {what} {link} is in uplink {other} already"
                    yield Flaw("nic-used-twice", "uplinks", message, f"a {what} has one uplink", path)

    def uplink(self, name: str) -> Uplink | None:
        return next((uplink for uplink in self.uplinks if uplink.name == name), None)

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        return self.address or "no address"

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        count = usage.on_host[self.name]
        if not count:
            return Disruption.FLOWS, "others drop their flows towards it"
        return Disruption.VIF, plugged(count)
