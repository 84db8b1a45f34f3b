"""Multicast on networks that snoop on IGMP and MLD (RFC 4541): frames to a group go where VIFs listen to it, and to multicast routers.

One rule: what is not surely for somebody else is flooded. A VIF of which nothing is known gets every group; link-local groups, and what is
neither IPv4 nor IPv6, go to FLOOD as on any network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ovsctl.openflow import Action, Band, Flow, Match, Meter
from ovsctl.openflow import actions as act
from vnet.compile.flows import (
    ETH_IPV4,
    ETH_IPV6,
    ICMPV6,
    IGMP,
    IN_THE_DATAPATH,
    PIM,
    Actions,
    Entries,
    Fields,
    Flows,
    goto,
)
from vnet.compile.inputs import LocalNetwork
from vnet.compile.l2 import ALL_GROUPS_PARTS, deliver_all, in_parts, on_segment, to_host, to_uplink
from vnet.compile.parts import LocalPorts, parts_of
from vnet.compile.pipeline import Category, From, Table, cookie
from vnet.compile.view import HostView
from vnet.objects import Vif, Way
from vnet.objects.identity import macs_of

# userdata of the packet-in by which the agent hears what a VIF says of its multicast groups
REPORT = b"vnet:report"
OF_REPORTS = 0x7706_0000  # the meter of a VIF's frames that say so, but for its ofport (see rates.OURS)
REPORT_RATE, REPORT_BURST = 50, 200  # frames a second: a guest may join all that is kept of it at once, twice
# Groups of frames by their MACs (RFC 1112 §6.4, RFC 2464 §7)
OF_IPV4 = ("01:00:5e:00:00:00", "ff:ff:ff:80:00:00")
OF_IPV6 = ("33:33:00:00:00:00", "ff:ff:00:00:00:00")
LOCAL_V4 = ("224.0.0.0", "255.255.255.0")
# IPv6 groups of up to link-local scope, whatever their flags (RFC 4291 §2.7)
LOCAL_V6 = (("ff00::", "ff0e::"), ("ff02::", "ff0f::"))
MLD_QUERY, MLD_REPORTS = 130, (131, 132, 143)  # RFC 2710 §3, RFC 3810 §5
# How long frames go by what was heard, unless the agent says again that it listens. After that the network floods here, as one that does not snoop.
LEASE_S = 60
REPORT_TARGETS = ("224.0.0.22", "224.0.0.2")  # of IGMPv3 reports (RFC 3376 §4.2.14), of leaves (RFC 2236 §9)


def report_flows(view: HostView, vif: Vif, ofport: int, mark: int) -> Entries:
    """Tells the agent what a VIF says of its groups, whatever its security groups make of the frame, which goes on."""
    if not view.is_heard(vif):
        return ()
    onward = goto(view.onward(Table.REPORTS, vif))
    meter = Meter(OF_REPORTS | ofport, (Band(REPORT_RATE, REPORT_BURST),), packets=True)
    # A copy of its own: a meter that drops ends what is left to do with the packet (docs/adr/0011).
    tell = act.Clone(IN_THE_DATAPATH, act.MeterAction(meter.meter_id), act.ToController(userdata=REPORT))
    speaks: list[Fields] = [
        {"eth_dst": OF_IPV4, "eth_type": ETH_IPV4, "nw_proto": IGMP},
        {"eth_dst": OF_IPV4, "eth_type": ETH_IPV4, "nw_proto": PIM},
        {"eth_dst": OF_IPV6, "eth_type": ETH_IPV6, "nw_proto": PIM},
        *({"eth_dst": OF_IPV6, **_mld(sort)} for sort in (MLD_QUERY, *MLD_REPORTS)),
    ]

    def flow(priority: int, match: Fields, *actions: Action) -> Flow:
        return Flow(
            table=Table.REPORTS, priority=priority, cookie=mark, match=Match(in_port=ofport, **match), actions=actions
        )

    return (meter, *(flow(200, match, tell, onward) for match in speaks), flow(100, {}, onward))


def _mld(sort: int) -> Fields:
    return {"eth_type": ETH_IPV6, "nw_proto": ICMPV6, "icmpv6_type": sort}


def multicast_flows(view: HostView, name: str, _: str) -> Flows:
    """Where multicast of a network goes that no group's own flows carry: reports to routers, other groups to those that get all of them."""
    network = view.network(name)
    if network is None or network.segment is None or not network.snooping:
        return ()
    segment, mark = network.segment, cookie(Category.MULTICAST, name)

    def flow(table: Table, priority: int, match: Fields, *actions: Action) -> Flow:
        return Flow(
            table=table, priority=priority, cookie=mark, match=Match(metadata=segment, **match), actions=actions
        )

    flood = goto(Table.FLOOD)
    heard = [flow(Table.LOOKUP, 60, {"eth_dst": macs}, goto(Table.MULTICAST)) for macs in (OF_IPV4, OF_IPV6)]
    flows = [replace(entry, hard_timeout=LEASE_S) for entry in heard]
    to_routers = _to_routers(view, network)
    for priority, match in _reports():
        flows += _by_source(flow, priority, match, *to_routers)
    flows.append(flow(Table.MULTICAST, 295, _mld(MLD_QUERY), flood))
    flows += [flow(Table.MULTICAST, 290, match, flood) for match in _local_groups()]
    # A query for one group cannot be told from a report by its fields: it comes from a router, or perhaps from the physical network.
    igmp: Fields = {"eth_type": ETH_IPV4, "nw_proto": IGMP}
    flows += [flow(Table.MULTICAST, 280, igmp | {"eth_src": mac}, flood) for mac in _router_macs(view, name)]
    flows.append(flow(Table.MULTICAST, 280, igmp | {"reg0": From.UPLINK}, flood))
    flows += _by_source(flow, 260, igmp, *to_routers)
    here = [(port, vif) for port, vif in on_segment(view, network) if vif.network != name or view.gets_all_groups(vif)]
    local, parts = in_parts(view, mark, (segment, None), here, ALL_GROUPS_PARTS)
    flows.append(flow(Table.ALL_GROUPS, 100, {}, *local))
    away = _away(view, network, view.hosts_of_all_groups(name) if network.way is Way.TUNNEL else ())
    for eth_type in () if view.crowded(name) else (ETH_IPV4, ETH_IPV6):
        flows += _by_source(flow, 100, {"eth_type": eth_type}, away, (goto(Table.ALL_GROUPS),))
    return (*flows, *parts)


def listener_flows(view: HostView, group: str, name: str) -> Flows:
    """Where frames to a group go; none where its network does not snoop, or has too many groups."""
    network = view.network(name)
    if network is None or network.segment is None or not network.snooping or view.crowded(name):
        return ()
    listeners = view.listeners(group, name)
    if not listeners:
        return ()
    here = [(port, vif) for port, vif in view.listening_here(group, name) if not view.gets_all_groups(vif)]
    hosts = {*listeners, *view.hosts_of_all_groups(name)} if network.way is Way.TUNNEL else ()
    match: Fields = (
        {"eth_type": ETH_IPV6, "ipv6_dst": group} if ":" in group else {"eth_type": ETH_IPV4, "ip_dst": group}
    )
    mark, metadata = cookie(Category.LISTENERS, f"{group} {name}"), network.segment

    def flow(table: Table, priority: int, fields: Fields, *actions: Action) -> Flow:
        return Flow(
            table=table, priority=priority, cookie=mark, match=Match(metadata=metadata, **fields), actions=actions
        )

    if parts_of(view, here) is not None:  # they do not fit a flow
        return (flow(Table.MULTICAST, 200, match, goto(Table.FLOOD)),)
    local = (*deliver_all(view, here), goto(Table.ALL_GROUPS))
    return tuple(_by_source(flow, 200, match, _away(view, network, hosts), local))


def _by_source(
    flow: Callable[..., Flow], priority: int, match: Fields, away: Actions, local: Actions
) -> Iterator[Flow]:
    """A frame of a VIF here leaves the host as well; others have been where they are to go."""
    yield flow(Table.MULTICAST, priority + 5, match | {"reg0": From.VIF}, *away, *local)
    yield flow(Table.MULTICAST, priority, match, *local)


def _away(view: HostView, network: LocalNetwork, hosts: Iterable[str]) -> Actions:
    """How a VIF's frame leaves this host for VIFs on others. The physical network gets all: its switches know who listens there."""
    if network.way is Way.UPLINK:
        return () if network.patch is None else to_uplink(network.patch, network.tag or 0, service=network.service)
    others = sorted({*hosts} - {view.me})
    return tuple(action for host in others for action in to_host(view, network, host))


def _to_routers(view: HostView, network: LocalNetwork) -> tuple[Actions, Actions]:
    """How a report leaves this host, and how it reaches VIFs here: only multicast routers get it (RFC 4541 §2.1.1)."""
    name = network.name
    routers = view.multicast_routers(name)
    hosts = {binding.host for vif in routers for binding in view.bindings_of(name, vif)}
    here: LocalPorts = view.deliverable(vif for id in routers if (vif := view.vif(id, name)) is not None)
    return _away(view, network, hosts), deliver_all(view, here)


def _router_macs(view: HostView, name: str) -> list[str]:
    return sorted(
        {
            mac
            for vif in view.multicast_routers(name)
            for binding in view.bindings_of(name, vif)
            for mac in macs_of(binding)
        }
    )


def _reports() -> Iterator[tuple[int, Fields]]:
    for target in REPORT_TARGETS:
        yield 300, {"eth_type": ETH_IPV4, "nw_proto": IGMP, "ip_dst": target}
    for sort in MLD_REPORTS:
        yield 300, _mld(sort)


def _local_groups() -> Iterator[Fields]:
    """The groups of the link, which go to everybody."""
    yield {"eth_type": ETH_IPV4, "ip_dst": LOCAL_V4}
    for groups in LOCAL_V6:
        yield {"eth_type": ETH_IPV6, "ipv6_dst": groups}
