"""The features of the pipeline, each with its tables, its sources of flows and its cookie category.

One rule: a feature's builder returns the flows and meters of one source and reads nothing but its HostView.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from vnet.compile.accounting import pool_flows
from vnet.compile.address_sets import set_flows
from vnet.compile.capture import capture_flows
from vnet.compile.flows import Entries, Flows
from vnet.compile.guard import service_flows
from vnet.compile.hello import hello_flows
from vnet.compile.inputs import Input
from vnet.compile.isolation import role_flows
from vnet.compile.l2 import base_flows, flood_flows, lookup_flows, network_flows, trunk_flows
from vnet.compile.learning import behind_flows
from vnet.compile.mirrors import base_mirror_flows, mirror_flows, mirrored_flows, mirrored_network_flows
from vnet.compile.monitoring import monitor_flows
from vnet.compile.multicast import listener_flows, multicast_flows
from vnet.compile.pipeline import Category, Table
from vnet.compile.probe import probe_flows
from vnet.compile.rates import network_rate_flows, rate_flows
from vnet.compile.rejection import reject_flows
from vnet.compile.rule_log import log_flows
from vnet.compile.security import group_flows, peer_flows, policy_flows, server_flows
from vnet.compile.view import HostView
from vnet.compile.vif import vif_flows
from vnet.compile.virtual_router import router_flows


class FlowSource(NamedTuple):
    """The origin of flows: a feature, by its category, and the object that it is of, by name and, where it has one, network."""

    category: Category
    name: str = ""
    network: str = ""


@dataclass(frozen=True, slots=True)
class Feature:
    """A concern of the pipeline.

    of: the inputs of which each value has a source of this feature. tables: the tables that its flows are in. flows: builds a
    source's flows and meters. origin: a source in words, with {} for the object's name.
    """

    category: Category
    origin: str
    of: tuple[Input, ...]
    tables: frozenset[Table]
    flows: Callable[[HostView, str, str], Entries]


def _base(view: HostView, _: str, __: str) -> Flows:
    return (*base_flows(), *service_flows(), *policy_flows(), *base_mirror_flows())


def _is_known(view: HostView, vif: str, network: str) -> bool:
    """Whether a VIF is anywhere. For one that is gone nothing else is read, so that nothing is remembered of it."""
    return view.vif(vif, network) is not None or bool(view.bindings_of(network, vif))


def _location(view: HostView, vif: str, network: str) -> Flows:
    if not _is_known(view, vif, network):
        return ()
    return (
        *lookup_flows(view, vif, network),
        *server_flows(view, vif, network),
        *role_flows(view, vif, network),
        *pool_flows(view, vif, network),
    )


def _mirrored(view: HostView, vif: str, network: str) -> Flows:
    if view.vif(vif, network) is None and not view.mirrors_of(network, vif):
        return ()  # nothing else is read: it may be gone
    return mirrored_flows(view, vif, network)


T = Table
OWN_POLICY = frozenset(
    {
        T.EGRESS,
        T.EGRESS_STATE,
        T.EGRESS_COMMITTED,
        T.INGRESS,
        T.INGRESS_STATE,
        T.INGRESS_COMMITTED,
        T.FROM_ISOLATION,
        T.TO_ISOLATION,
    }
)
FEATURES = (
    Feature(Category.BASE, "every network", (Input.HOST,), frozenset(Table), _base),
    Feature(
        Category.NETWORK,
        "network {}",
        (Input.NETWORK,),
        frozenset({T.CLASSIFY, T.TAGGED, T.SERVICE_TAGGED}),
        network_flows,
    ),
    Feature(
        Category.FLOOD,
        "members of network {}",
        (Input.NETWORK,),
        frozenset({T.FLOOD, T.FLOOD_PART, T.UNKNOWN}),
        flood_flows,
    ),
    Feature(
        Category.ROUTER,
        "virtual routers of network {}",
        (Input.NETWORK,),
        frozenset({T.LOOKUP, T.SENDER_ROLE, T.TO_POOL, T.FROM_POOL}),
        router_flows,
    ),
    Feature(
        Category.VIF,
        "VIF {}",
        (Input.VIF,),
        frozenset(
            {T.CLASSIFY, T.TAGGED, T.ADMIT, T.SERVICES, T.GUARD, T.LEARN, T.REPORTS, T.SENT, T.GATED, T.DELIVER, T.GATE}
        )
        | OWN_POLICY,
        vif_flows,
    ),
    Feature(
        Category.LOOKUP,
        "location of VIF {}",
        (Input.BINDINGS, Input.VIF),
        frozenset({T.GUARD, T.LOOKUP, T.HELD, T.INGRESS, T.RECEIVER_ROLE, T.SENDER_ROLE, T.TO_POOL, T.FROM_POOL}),
        _location,
    ),
    Feature(
        Category.TRUNK,
        "trunks on uplink {}",
        (Input.UPLINK,),
        frozenset({T.CLASSIFY, T.TAG_TYPE, T.TAGGED, T.FLOOD, T.FLOOD_PART, T.UNKNOWN}),
        trunk_flows,
    ),
    Feature(
        Category.GROUP, "security group {}", (Input.GROUP,), frozenset({T.EGRESS_RULES, T.INGRESS_RULES}), group_flows
    ),
    Feature(
        Category.PEER,
        "security groups of VIF {}",
        (Input.PEER,),
        frozenset({T.EGRESS_PEER, T.INGRESS_PEER}),
        peer_flows,
    ),
    Feature(
        Category.ADDRESS_SET,
        "address sets that rules on network {} name",
        (Input.NETWORK,),
        frozenset({T.EGRESS_SETS, T.INGRESS_SETS}),
        set_flows,
    ),
    Feature(
        Category.RATE,
        "QoS class of VIF {}",
        (Input.VIF,),
        frozenset({T.STORM, T.FROM_RATE, T.UNKNOWN_RATE, T.TO_RATE, T.TO_METER}),
        rate_flows,
    ),
    Feature(
        Category.NETWORK_RATE,
        "QoS class of network {}",
        (Input.NETWORK,),
        frozenset({T.FROM_RATE, T.TO_RATE, T.TO_METER}),
        network_rate_flows,
    ),
    Feature(
        Category.REJECT,
        "rejections of VIF {}",
        (Input.VIF,),
        frozenset({T.EGRESS_REJECT, T.INGRESS_REJECT}),
        reject_flows,
    ),
    Feature(
        Category.LOG,
        "logged packets of VIF {}",
        (Input.VIF,),
        frozenset({T.EGRESS_LOG, T.INGRESS_LOG}),
        log_flows,
    ),
    Feature(
        Category.MONITOR,
        "monitored packets of VIF {}",
        (Input.VIF,),
        frozenset({T.EGRESS_LOG, T.INGRESS_LOG}),
        monitor_flows,
    ),
    Feature(Category.BEHIND, "MAC {}", (Input.BEHIND,), frozenset({T.LOOKUP}), behind_flows),
    Feature(
        Category.MULTICAST,
        "multicast of network {}",
        (Input.NETWORK,),
        frozenset({T.LOOKUP, T.MULTICAST, T.ALL_GROUPS, T.FLOOD_PART}),
        multicast_flows,
    ),
    Feature(
        Category.LISTENERS,
        "listeners of multicast group {}",
        (Input.LISTENERS,),
        frozenset({T.MULTICAST}),
        listener_flows,
    ),
    Feature(Category.HELLO, "hellos by {}", (Input.DEVICE,), frozenset({T.CLASSIFY}), hello_flows),
    Feature(Category.CAPTURE, "capture {}", (Input.CAPTURE,), frozenset({T.CLASSIFY, T.DELIVER}), capture_flows),
    Feature(
        Category.MIRROR,
        "mirror {}",
        (Input.MIRROR,),
        frozenset({T.CLASSIFY, T.MIRROR_FILTER, T.MIRROR_OUT, T.MIRROR_HERE}),
        mirror_flows,
    ),
    Feature(
        Category.MIRRORED,
        "mirrors of VIF {}",
        (Input.MIRRORED, Input.VIF),
        frozenset({T.GUARD, T.MIRROR_SENT, T.MIRROR_PASSED, T.MIRROR_GOT, T.MIRROR_FROM, T.MIRROR_TO}),
        _mirrored,
    ),
    Feature(
        Category.MIRRORED_NETWORK,
        "mirrors of network {}",
        (Input.NETWORK,),
        frozenset({T.MIRROR_PASSED, T.MIRROR_TO}),
        mirrored_network_flows,
    ),
    Feature(Category.PROBE, "probe {}", (Input.PROBE,), frozenset({T.CLASSIFY, T.DELIVER}), probe_flows),
)
