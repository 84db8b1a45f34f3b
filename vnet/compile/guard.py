"""Flows of the source guard: the frames that a VIF may send, by its locking mode.

One rule: a locked VIF is a host. It speaks as its own MAC and addresses (GUARD), and neither as a router nor as a DHCP server
unless it is declared as one (SERVICES). A frame whose headers Open vSwitch cannot read to the end counts as forbidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

from ovsctl.openflow import Band, Flow, Match, Meter
from ovsctl.openflow import actions as act
from vnet.compile.flows import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ETH_RARP,
    ICMP,
    ICMPV6,
    IGMP,
    UDP,
    VRRP,
    Actions,
    Fields,
    goto,
)
from vnet.compile.pipeline import Category, Table, cookie, following
from vnet.objects import LockingMode, Vif
from vnet.objects.identity import Identity, own_identities, virtual_identities
from vnet.objects.link_local import link_local
from vnet.objects.words import ip_version

# ICMPv6 types
ECHO = (128, 129)  # RFC 4443 §4
LISTENER_REPORT, LISTENER_DONE, LISTENER_REPORT_2 = 131, 132, 143  # RFC 2710 §3, RFC 3810 §5.2
ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 133, 135, 136  # RFC 4861 §4
ROUTERS_V6 = (
    134,
    137,
    151,
    153,
)  # advertisement, redirect (RFC 4861 §4.2, §4.5), multicast router discovery (RFC 4286)
ROUTERS_V4 = (5, 9)  # ICMP types: redirect (RFC 792), router advertisement (RFC 1256)
# Protocols after which Open vSwitch reads no further: 0 is a chain of headers that is cut short, the others are extension
# headers that it does not know (RFC 7045 §4: mobility, HIP, shim6, experiments). Any message may follow (RFC 7113 §3).
UNDETERMINED = (0, 135, 139, 140, 253, 254)
FIRST, WHOLE = "first", "no"  # values of ip_frag

UNSPECIFIED = "::"
LINK_LOCAL = ("fe80::", "ffc0::")  # RFC 4291 §2.5.6
MULTICAST_V4 = ("224.0.0.0", "240.0.0.0")  # RFC 5771


class Privilege(Enum):
    """The declaration that lets a locked VIF send a message; of some there is none."""

    ROUTER = "router"
    DHCP_SERVER = "dhcp-server"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Restricted:
    """Messages that a locked VIF sends with a privilege only."""

    match: Fields
    privilege: Privilege


def _restricted() -> Iterator[Restricted]:
    icmp: Fields = {"eth_type": ETH_IPV4, "nw_proto": ICMP}
    icmp6: Fields = {"eth_type": ETH_IPV6, "nw_proto": ICMPV6}
    for number in ROUTERS_V4:
        yield Restricted(icmp | {"icmp_type": number}, Privilege.ROUTER)
    for number in ROUTERS_V6:
        yield Restricted(icmp6 | {"icmpv6_type": number, "ip_frag": WHOLE}, Privilege.ROUTER)
    # A server's message is known by its port, and a client takes one from any port (RFC 2131 §4.1, RFC 8415 §7.2).
    for eth_type, client, server in ((ETH_IPV4, 68, 67), (ETH_IPV6, 546, 547)):
        udp: Fields = {"eth_type": eth_type, "nw_proto": UDP}
        yield Restricted(udp | {"udp_src": server}, Privilege.DHCP_SERVER)
        yield Restricted(udp | {"udp_dst": client}, Privilege.DHCP_SERVER)
        # Port 0 is that of a first fragment whose ports are not seen.
        yield Restricted(udp | {"ip_frag": FIRST, "udp_src": 0}, Privilege.NOBODY)
    for protocol in UNDETERMINED:
        yield Restricted({"eth_type": ETH_IPV6, "nw_proto": protocol}, Privilege.NOBODY)
    # Neighbour discovery is never fragmented (RFC 6980), and errors are too short to be. Pings may be.
    yield Restricted(icmp6 | {"ip_frag": FIRST}, Privilege.NOBODY)


RESTRICTED = tuple(_restricted())


def privilege_for(dropping: Flow) -> Privilege | None:
    """The privilege that a flow of SERVICES found missing; None where it dropped for another reason."""
    return next((r.privilege for r in RESTRICTED if Match(**r.match) == dropping.match), None)


DROPPED, PRIVILEGED, MALFORMED = 100, 120, 130  # priorities in SERVICES

NO_ANNOUNCEMENT = 160  # priority in ADMIT, between announcements and ports that are open

# The option by which a message of neighbour discovery teaches others a link-layer address (RFC 4861 §4.6.1).
LINK_ADDRESSES = {NEIGHBOUR_SOLICITATION: "nd_sll", NEIGHBOUR_ADVERTISEMENT: "nd_tll"}


NO_MAC = "00:00:00:00:00:00"  # of a message without the option


def _discovery(number: int) -> Fields:
    return {"eth_type": ETH_IPV6, "nw_proto": ICMPV6, "icmpv6_type": number}


# Goes with each match of a target or an option: without it Open vSwitch before 3.1.4 puts neither into the kernel's megaflow, which then is one for
# all messages of the type (odp_flow_key_from_flow in lib/odp-util.c).
DISCOVERY_CODE: Fields = {"icmpv6_code": 0}


def link_addresses(mac: str, number: int) -> Iterator[Fields]:
    """Solicitations or advertisements that teach no other link-layer address than `mac`."""
    yield from (_teaching(number, address) for address in (mac, NO_MAC))


def _teaching(number: int, mac: str) -> Fields:
    return _discovery(number) | DISCOVERY_CODE | {"ip_frag": WHOLE, LINK_ADDRESSES[number]: mac}


@cache
def service_flows() -> tuple[Flow, ...]:
    """The part of SERVICES that is of no VIF."""
    mark = cookie(Category.BASE, "")
    goes_on: Actions = (goto(following(Table.SERVICES)),)
    whole_pings: Fields = {"eth_type": ETH_IPV6, "nw_proto": ICMPV6, "ip_frag": FIRST}
    return (
        *(_flow(mark, Table.SERVICES, DROPPED, restricted.match, ()) for restricted in RESTRICTED),
        *(_flow(mark, Table.SERVICES, PRIVILEGED, whole_pings | {"icmpv6_type": number}, goes_on) for number in ECHO),
        # Which link-layer address they teach is the VIF's own flows' to allow. Open vSwitch gives no target where options are
        # malformed, or there are two of one type.
        *(_flow(mark, Table.SERVICES, DROPPED, _discovery(number), ()) for number in LINK_ADDRESSES),
        *(
            _flow(mark, table, priority, _discovery(number) | DISCOVERY_CODE | {"nd_target": UNSPECIFIED}, ())
            for table, priority in ((Table.SERVICES, MALFORMED), (Table.ADMIT, NO_ANNOUNCEMENT))
            for number in LINK_ADDRESSES
        ),
    )


def guard_flows(
    vif: Vif, ofport: int, mark: int, after: Table, segment: int = 0, chosen: Sequence[str] = ()
) -> Iterator[Flow | Meter]:
    """The flows by which a VIF's frames pass SERVICES and GUARD, on to the table `after`. The rest of them is dropped there.

    unlocked: anything. locked with addresses: ARP, IP and ND as its MAC and those addresses, the messages that DHCP, duplicate
    address detection and multicast need before there is one, and RARP. locked without addresses: anything as its MAC.
    """
    held = [Privilege.ROUTER] * vif.router + [Privilege.DHCP_SERVER] * vif.dhcp_server
    goes_on: Actions = (goto(following(Table.SERVICES)),)
    allowed: list[Fields] = []
    if vif.locking_mode is LockingMode.LOCKED:
        allowed += [restricted.match for restricted in RESTRICTED if restricted.privilege in held]
        taught = [identity.mac for identity in _identities(vif) if not identity.addresses or _versions(identity)[6]]
        for number in LINK_ADDRESSES if taught else ():
            allowed += [_teaching(number, mac) for mac in (*taught, NO_MAC)]
    yield from (_flow(mark, Table.SERVICES, PRIVILEGED, {"in_port": ofport, **match}, goes_on) for match in allowed)
    passes: Actions = (goto(after),)
    for priority, match in _rules(vif, chosen, segment):
        yield _flow(mark, Table.GUARD, priority, {"in_port": ofport, **match}, () if priority == REFUSE else passes)
    if claims := [{"in_port": ofport, **match} for match in _claims(vif)]:
        yield Meter(CLAIMED | ofport, (Band(CLAIM_RATE, CLAIM_BURST),), packets=True)
        limited: Actions = (act.MeterAction(CLAIMED | ofport), *passes)
        yield from (_flow(mark, Table.GUARD, EXCEPT, match, limited) for match in claims)
    if _has_ipv6(vif):
        yield from _watch(vif, ofport, mark, segment)


def _flow(mark: int, table: Table, priority: int, match: Fields, actions: Actions) -> Flow:
    return Flow(table=table, priority=priority, cookie=mark, match=Match(**match), actions=actions)


# Priorities in GUARD: what EXCEPT allows is cut out of what REFUSE drops; WATCH is for what none of the VIF's addresses lets pass.
WATCH, ALLOW, REFUSE, CHOOSE, EXCEPT = 60, 100, 110, 115, 120
# userdata of the packet-in by which the agent learns that a guest uses a link-local address that is not its own yet
CHOICE = b"vnet:link-local"
WATCHED = 0x7700_0000  # a meter's number, but for the ofport of its VIF (see rates.OURS)
WATCHED_RATE, WATCHED_BURST = 5, 10  # frames a second: a guest that comes up sends two or three


CLAIMED = 0x770A_0000  # the meter of a VIF's claims, but for its ofport
CLAIM_RATE, CLAIM_BURST = 50, 100  # a master advertises itself once a second, at most a hundred times (RFC 9568 §5.2.7)


def _claims(vif: Vif) -> Iterator[Fields]:
    """The advertisements by which a VIF claims to be the master of a virtual router: each backup and each physical switch acts on one."""
    for identity in virtual_identities(vif) if vif.locking_mode is LockingMode.LOCKED else ():
        for version, eth_type, source in ((4, ETH_IPV4, "ip_src"), (6, ETH_IPV6, "ipv6_src")):
            claim: Fields = {"eth_src": identity.mac, "eth_type": eth_type, "nw_proto": VRRP}
            if not identity.addresses:
                yield claim
            elif addresses := _versions(identity)[version]:
                local = [link_local(identity.mac)] if version == 6 else []
                yield from (claim | {source: address} for address in (*addresses, *local))


def _has_ipv6(vif: Vif) -> bool:
    return vif.locking_mode is LockingMode.LOCKED and 6 in map(ip_version, vif.addresses)


def _watch(vif: Vif, ofport: int, mark: int, segment: int) -> Iterator[Flow | Meter]:
    """What a guest sends as a link-local address that it may have chosen goes to the agent, a few frames a second.

    Duplicate address detection asks from :: for the address as its target (RFC 4862 §5.4.2). An advertisement may be the first that a guest
    sends: the answer to who looks for it.
    """
    meter = WATCHED | ofport
    yield Meter(meter, (Band(WATCHED_RATE, WATCHED_BURST),), packets=True)
    tell: Actions = (act.MeterAction(meter), act.ToController(userdata=CHOICE))
    ipv6 = _on_its_network(vif, segment) | {"eth_src": vif.mac, "eth_type": ETH_IPV6}
    discovery = ipv6 | {"nw_proto": ICMPV6, "nd_target": LINK_LOCAL} | DISCOVERY_CODE
    for priority, match in (
        (WATCH, ipv6 | {"ipv6_src": LINK_LOCAL}),
        (WATCH, discovery | {"icmpv6_type": NEIGHBOUR_SOLICITATION, "ipv6_src": UNSPECIFIED}),
        (CHOOSE, discovery | {"icmpv6_type": NEIGHBOUR_ADVERTISEMENT, "ipv6_src": LINK_LOCAL}),
    ):
        yield _flow(mark, Table.GUARD, priority, {"in_port": ofport, **match}, tell)


def _on_its_network(vif: Vif, segment: int) -> Fields:
    """A trunk's tags are other networks, whose VIFs this host need not know: what it chooses there may be another's."""
    return {} if vif.trunk is None else {"metadata": segment}


def _rules(vif: Vif, chosen: Sequence[str], segment: int) -> Iterator[tuple[int, Fields]]:
    if vif.locking_mode is LockingMode.UNLOCKED:
        yield ALLOW, {}
        return
    for identity in _identities(vif):
        yield from _rules_as(identity, chosen if identity.mac == vif.mac else (), vif, segment)


def _identities(vif: Vif) -> Iterator[Identity]:
    yield from own_identities(vif)
    yield from virtual_identities(vif)


def _versions(identity: Identity) -> dict[int, list[str]]:
    """An identity's addresses by their IP version."""
    found: dict[int, list[str]] = {4: [], 6: []}
    for address in identity.addresses:
        found[ip_version(address)].append(address)
    return found


def _rules_as(identity: Identity, chosen: Sequence[str], vif: Vif, segment: int) -> Iterator[tuple[int, Fields]]:
    """What a VIF sends as one of its MACs."""
    own: Fields = {"eth_src": identity.mac}
    arp, ipv4, ipv6 = (own | {"eth_type": eth_type} for eth_type in (ETH_ARP, ETH_IPV4, ETH_IPV6))
    if not identity.addresses:
        yield from ((ALLOW, own), (REFUSE, arp), (EXCEPT, arp | {"arp_sha": identity.mac}))
        return
    versions = _versions(identity)
    v4, v6 = versions[4], versions[6]
    yield ALLOW, own | {"eth_type": ETH_RARP}
    for address in v4:
        yield ALLOW, arp | {"arp_sha": identity.mac, "arp_spa": address}
        yield ALLOW, ipv4 | {"ip_src": address}
    if v4:
        yield ALLOW, arp | {"arp_sha": identity.mac, "arp_spa": "0.0.0.0"}  # a probe, RFC 5227 §1.1
        nobody = ipv4 | {"ip_src": "0.0.0.0"}
        dhcp: Fields = {"nw_proto": UDP, "ip_dst": "255.255.255.255", "udp_src": 68, "udp_dst": 67}
        yield ALLOW, nobody | dhcp  # RFC 2131 §4.1
        yield ALLOW, nobody | {"nw_proto": IGMP, "ip_dst": MULTICAST_V4}  # RFC 3376 §4.2.13
    if v6:
        only: Fields = _on_its_network(vif, segment)
        yield from _ipv6_rules(ipv6, [*v6, link_local(identity.mac)], dict.fromkeys(chosen, only))


def _ipv6_rules(ipv6: Fields, declared: list[str], chosen: dict[str, Fields]) -> Iterator[tuple[int, Fields]]:
    """As its own addresses, advertisements only for them. From :: a guest without an address looks for one."""
    icmp = ipv6 | {"nw_proto": ICMPV6}
    advertise, nobody = icmp | {"icmpv6_type": NEIGHBOUR_ADVERTISEMENT}, icmp | {"ipv6_src": UNSPECIFIED}
    # RFC 4861 §4.1, RFC 3590 §4, RFC 3810 §5.2.13
    for number in (ROUTER_SOLICITATION, LISTENER_REPORT, LISTENER_DONE, LISTENER_REPORT_2):
        yield ALLOW, nobody | {"icmpv6_type": number}
    # Duplicate address detection (RFC 4862 §5.4.2) for another's address would keep that from its owner.
    detect = nobody | {"icmpv6_type": NEIGHBOUR_SOLICITATION}
    yield REFUSE, advertise
    addresses: dict[str, Fields] = {address: {} for address in declared} | chosen
    for source, only in addresses.items():
        yield ALLOW, detect | DISCOVERY_CODE | {"nd_target": source} | only
        yield ALLOW, ipv6 | {"ipv6_src": source} | only
        for target, also in addresses.items():
            yield EXCEPT, advertise | DISCOVERY_CODE | {"ipv6_src": source, "nd_target": target} | only | also
