"""The fields of a frame for which the guard of a VIF's port dropped it.

One rule: they are read off the flows. Of the flows that admit frames from the port, those nearest to the frame count: first
by protocol, then by the number of fields that differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ovsctl.datapath.flow_key import key_field
from ovsctl.openflow import Flow, ToController
from ovsctl.openflow.fields import Field, Needs, format_value
from ovsctl.openflow.match import FieldMatch
from vnet.compile import CHOICE, Privilege, Table, privilege_for

TAGGED, VLAN_ID = 0x1000, 0xFFF  # bits of vlan_tci
GUARDS = (Table.CLASSIFY, Table.ADMIT, Table.SERVICES, Table.GUARD)
_PROTOCOL = {
    "eth_type": "Ethernet type",
    "nw_proto": "IP protocol",
    "icmp_type": "ICMP type",
    "icmpv6_type": "ICMPv6 type",
}
_FIELDS = {
    "eth_src": "source MAC",
    "arp_sha": "ARP sender MAC",
    "arp_spa": "ARP sender address",
    "ip_src": "IPv4 source",
    "ipv6_src": "IPv6 source",
    "nd_target": "ND target",
    "nd_sll": "ND source link-layer address",
    "nd_tll": "ND target link-layer address",
    "vlan_tci": "VLAN tag",
    "udp_src": "UDP source port",
    "udp_dst": "UDP destination port",
    "ip_frag": "fragment",
    **_PROTOCOL,
}


def wrong_fields(flows: Iterable[Flow], table: int, dropping: Flow | None, key: int) -> str:
    """The fields that a flow of `table` would have had to match, as "IPv4 source 10.1.0.99 is not 10.1.0.10".

    key: the frame's in the table. dropping: the flow that dropped it, None for a miss. Empty where no field is to blame.
    """
    if table == Table.SERVICES and dropping is not None and (privilege := privilege_for(dropping)) is not None:
        return _missing_privilege(dropping, privilege)
    priority = dropping.priority if dropping is not None else -1
    ranked: dict[tuple[int, ...], list[list[FieldMatch]]] = {}
    for flow in flows:
        if (
            flow.table != table
            or flow.priority <= priority
            or not flow.actions
            or is_watch(flow)
            or not _from_port(flow, key)
        ):
            continue
        wrong = _wrong(flow, key)
        rank = (sum(entry.field.name in _PROTOCOL for entry in wrong), len(wrong))
        ranked.setdefault(rank, []).append(wrong)
    return "; ".join(_differences(ranked[min(ranked)], key)) if ranked else ""


def is_watch(flow: Flow) -> bool:
    """Whether a flow tells the agent of a link-local address that the VIF does not have, and drops the frame."""
    return bool(flow.actions) and isinstance(last := flow.actions[-1], ToController) and last.userdata == CHOICE


def _missing_privilege(dropping: Flow, privilege: Privilege) -> str:
    """As "ICMPv6 type 134 is for VIFs with router: true"."""
    *_, last = (entry for entry in dropping.match.entries if entry.field.name != "eth_type")
    allowed = "unlocked VIFs" if privilege is Privilege.NOBODY else f"VIFs with {privilege.value}: true"
    return f"{_FIELDS[last.field.name]} {_text(last.field, last.value, last.mask)} is for {allowed}"


def _wrong(flow: Flow, key: int) -> list[FieldMatch]:
    """The entries of a flow's match that a frame fails. A frame of another protocol does not have the protocol's fields."""
    wrong = [entry for entry in flow.match.entries if not _holds(entry, key)]
    if any(entry.field.name in _PROTOCOL for entry in wrong):
        return [entry for entry in wrong if entry.field.name in _PROTOCOL or entry.field.needs is Needs.NOTHING]
    return wrong


def _from_port(flow: Flow, key: int) -> bool:
    port = flow.match.get("in_port")
    return port is not None and _holds(port, key)


def _holds(entry: FieldMatch, key: int) -> bool:
    return key_field(entry.field).get(key) & entry.mask == entry.value


def _differences(nearest: list[list[FieldMatch]], key: int) -> Iterator[str]:
    """Each differing field once, with all values that the nearest flows take."""
    taken: dict[str, dict[str, None]] = {}
    fields = {}
    for wrong in nearest:
        for entry in wrong:
            fields[entry.field.name] = entry.field
            taken.setdefault(entry.field.name, {})[_text(entry.field, entry.value, entry.mask)] = None
    for name, values in taken.items():
        field = fields[name]
        actual = _text(field, key_field(field).get(key), field.full)
        yield f"{_FIELDS.get(name, name)} {actual} is not {' or '.join(values)}"


def _text(field: Field, value: int, mask: int) -> str:
    if field.name != "vlan_tci":
        return format_value(field, value, mask)
    if not value & TAGGED:
        return "none"
    return str(value & VLAN_ID) if mask & VLAN_ID else "any"
