"""The features of the pipeline, each with its tables, its sources of flows and its cookie category.

One rule: a feature's builder returns the flows of one source and reads nothing but its HostView.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from vnet.compile.flows import Flows
from vnet.compile.inputs import Input
from vnet.compile.l2 import base_flows, flood_flows, lookup_flows, network_flows, trunk_flows
from vnet.compile.pipeline import Category, Table
from vnet.compile.probe import probe_flows
from vnet.compile.security import group_flows, peer_flows, policy_flows
from vnet.compile.view import HostView
from vnet.compile.vif import vif_flows


class Source(NamedTuple):
    """The origin of flows: a feature, by its category, and the object that it is of, by name and, where it has one, network."""

    category: Category
    name: str = ""
    network: str = ""


@dataclass(frozen=True, slots=True)
class Feature:
    """A concern of the pipeline.

    of: the inputs of which each value has a source of this feature. tables: the tables that its flows are in.
    """

    category: Category
    of: tuple[Input, ...]
    tables: frozenset[Table]
    flows: Callable[[HostView, str, str], Flows]


def _base(view: HostView, _: str, __: str) -> Flows:
    return (*base_flows(), *policy_flows())


T = Table
FEATURES = (
    Feature(Category.BASE, (Input.HOST,), frozenset(Table), _base),
    Feature(Category.NETWORK, (Input.NETWORK,), frozenset({T.CLASSIFY}), network_flows),
    Feature(Category.FLOOD, (Input.NETWORK,), frozenset({T.FLOOD, T.UNKNOWN}), flood_flows),
    Feature(
        Category.VIF,
        (Input.VIF,),
        frozenset({T.CLASSIFY, T.ADMIT, T.GUARD, T.EGRESS_STATE, T.GATED, T.INGRESS_STATE, T.DELIVER, T.GATE}),
        vif_flows,
    ),
    Feature(Category.LOOKUP, (Input.BINDINGS, Input.VIF), frozenset({T.GUARD, T.LOOKUP, T.HELD}), lookup_flows),
    Feature(Category.TRUNK, (Input.UPLINK,), frozenset({T.CLASSIFY, T.FLOOD, T.UNKNOWN}), trunk_flows),
    Feature(Category.GROUP, (Input.GROUP,), frozenset({T.EGRESS_RULES, T.INGRESS_RULES}), group_flows),
    Feature(Category.PEER, (Input.PEER,), frozenset({T.EGRESS_PEER, T.INGRESS_PEER}), peer_flows),
    Feature(Category.PROBE, (Input.PROBE,), frozenset({T.CLASSIFY, T.DELIVER}), probe_flows),
)
