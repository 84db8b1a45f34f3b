"""Matches and flows in `ovs-ofctl` syntax, both ways (ovs-ofctl(8), "Flow Syntax"; ovs-fields(7)).

One rule: what is written here is what `ovs-ofctl dump-flows --no-stats` writes, and what is read is what it takes,
but for one thing: a field without its prerequisites, which ovs-ofctl drops, is an error here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ovsctl.openflow.action_text import format_actions, number, pairs, parse_actions
from ovsctl.openflow.errors import TextError
from ovsctl.openflow.fields import Format, format_value
from ovsctl.openflow.flow import Flow, FlowFlags
from ovsctl.openflow.match import FieldMatch, Match, matching

_PROTOCOLS = {
    "ip": (0x0800, None),
    "ipv4": (0x0800, None),
    "ip4": (0x0800, None),
    "arp": (0x0806, None),
    "icmp": (0x0800, 1),
    "tcp": (0x0800, 6),
    "udp": (0x0800, 17),
    "sctp": (0x0800, 132),
    "ipv6": (0x86DD, None),
    "ip6": (0x86DD, None),
    "icmp6": (0x86DD, 58),
    "tcp6": (0x86DD, 6),
    "udp6": (0x86DD, 17),
    "sctp6": (0x86DD, 132),
    "rarp": (0x8035, None),
    "mpls": (0x8847, None),
    "mplsm": (0x8848, None),
}
_SHORT = {
    (0x0800, 1): "icmp",
    (0x0800, 6): "tcp",
    (0x0800, 17): "udp",
    (0x0800, 132): "sctp",
    (0x86DD, 58): "icmp6",
    (0x86DD, 6): "tcp6",
    (0x86DD, 17): "udp6",
    (0x86DD, 132): "sctp6",
}
_SHORT_TYPES = {0x0800: "ip", 0x86DD: "ipv6", 0x0806: "arp", 0x8035: "rarp"}

# The order in which ovs-ofctl writes a match; "@" is where the protocol's short name goes.
_ORDER = (
    "pkt_mark conj_id ct_state ct_zone ct_mark ct_label ct_nw_src ct_ipv6_src ct_nw_dst ct_ipv6_dst "
    "ct_nw_proto ct_tp_src ct_tp_dst @ "
    + " ".join(f"reg{n}" for n in range(16))
    + " tun_id tun_src tun_dst tun_ipv6_src tun_ipv6_dst tun_gbp_id tun_gbp_flags tun_flags metadata in_port "
    "vlan_tci eth_src eth_dst eth_type ipv6_src ipv6_dst ipv6_label arp_spa arp_tpa ip_src ip_dst "
    "nw_proto arp_op arp_sha arp_tha ip_dscp nw_ecn nw_ttl ip_frag "
    "icmp_type icmp_code icmpv6_type icmpv6_code nd_target nd_sll nd_tll nd_reserved nd_options_type "
    "tcp_src udp_src sctp_src tcp_dst udp_dst sctp_dst tcp_flags"
).split()
_NAMES = {
    "eth_src": "dl_src",
    "eth_dst": "dl_dst",
    "eth_type": "dl_type",
    "ip_src": "nw_src",
    "ip_dst": "nw_dst",
    "ip_frag": "nw_frag",
    "icmpv6_type": "icmp_type",
    "icmpv6_code": "icmp_code",
} | {f"{p}_{end}": f"tp_{end}" for p in ("tcp", "udp", "sctp") for end in ("src", "dst")}


# ---- writing ----


def format_match(match: Match) -> str:
    """The match as `ovs-ofctl` writes it; empty for one that matches every packet."""
    entries = {entry.field.name: entry for entry in match}
    written = []
    for name in _ORDER:
        if name == "@":
            short = _take_protocol(entries)
            written += [short] if short else []
        elif name in entries:
            written.append(_format_entry(entries[name]))
    return ",".join(written)


def _take_protocol(entries: dict[str, FieldMatch]) -> str:
    """The protocol's short name; what it says is taken out of `entries`."""
    eth_type = entries["eth_type"].value if "eth_type" in entries else None
    proto = entries["nw_proto"].value if "nw_proto" in entries else None
    if eth_type not in _SHORT_TYPES:
        return ""
    del entries["eth_type"]
    if (eth_type, proto) in _SHORT:
        del entries["nw_proto"]
        return _SHORT[eth_type, proto or 0]
    return _SHORT_TYPES[eth_type]


def _format_entry(entry: FieldMatch) -> str:
    name, value, mask = entry.field.name, entry.value, entry.mask
    if name == "vlan_tci":
        return _format_vlan(value, mask)
    if name == "ip_dscp":
        return f"nw_tos={value << 2}"
    if name == "eth_type":
        return f"dl_type=0x{value:04x}"
    if name == "ipv6_label":
        return f"ipv6_label=0x{value:05x}" + ("" if entry.exact else f"/0x{mask:05x}")
    if name == "tun_flags":
        return "tun_flags=" + ("+oam" if value else "-oam")
    name = _NAMES.get(name, name)
    if entry.field.format is Format.DECIMAL and not entry.exact:
        return f"{name}={value:#x}/{mask:#x}"
    return f"{name}={format_value(entry.field, value, mask)}"


def _format_vlan(value: int, mask: int) -> str:
    vid, pcp = mask & 0x0FFF, mask & 0xE000
    if value & mask & 0x1000 and vid in (0, 0xFFF) and (vid or pcp):
        written = [f"dl_vlan={value & 0xFFF}"] if vid else []
        return ",".join(written + ([f"dl_vlan_pcp={value >> 13}"] if pcp else []))
    return f"vlan_tci=0x{value:04x}" + ("" if mask == 0xFFFF else f"/0x{mask:04x}")


def format_flow(flow: Flow) -> str:
    """The flow as `ovs-ofctl` takes it: "cookie=0x7,table=10,priority=100,ip,nw_src=10.0.0.0/8 actions=drop"."""
    parts = [f"cookie={flow.cookie:#x}"] if flow.cookie else []
    parts.append(f"table={flow.table}")
    for name in ("idle_timeout", "hard_timeout", "importance"):
        if getattr(flow, name):
            parts.append(f"{name}={getattr(flow, name)}")
    parts += [flag.name.lower() for flag in FlowFlags(flow.flags) if flag.name]
    if flow.priority != 0x8000:
        parts.append(f"priority={flow.priority}")
    match = format_match(flow.match)
    return ",".join(parts + ([match] if match else [])) + f" actions={format_actions(flow.actions)}"


# ---- reading ----

_IGNORED = frozenset(
    ("duration", "n_packets", "n_bytes", "idle_age", "hard_age", "no_readonly_table", "allow_hidden_fields", "eth")
)
_FLAGS = {flag.name.lower(): flag for flag in FlowFlags if flag.name and flag}
_NUMBERS = ("table", "priority", "idle_timeout", "hard_timeout", "importance", "cookie")
# Names that mean another field where the packet is ARP, or by transport protocol: they share a place in it.
_FOR_ARP = {
    "ip_src": "arp_spa", "nw_src": "arp_spa", "ip_dst": "arp_tpa", "nw_dst": "arp_tpa",
    "nw_proto": "arp_op", "ip_proto": "arp_op",
}  # fmt: skip
_TRANSPORTS = {6: "tcp", 17: "udp", 132: "sctp"}


def parse_match(text: str) -> Match:
    """The match of `ovs-ofctl` text. Raises TextError, FieldError."""
    return _match([(key, value) for key, value, _ in pairs(text)])


def _match(given: list[tuple[str, str]]) -> Match:
    fields: list[tuple[str, str | int]] = []
    bits = []
    for key, value in given:
        protocol = _PROTOCOLS.get(key) if not value else None
        if protocol is not None:
            fields.append(("eth_type", protocol[0]))
            if protocol[1] is not None:
                fields.append(("nw_proto", protocol[1]))
        elif "[" in key:
            bits.append(matching(key, number(value, key)))
        elif not value:
            raise TextError(key, "not a flag, and a field needs a value")
        else:
            fields.append((key, value))
    known = {name: value for name, value in fields if name in ("eth_type", "dl_type", "nw_proto", "ip_proto")}
    eth_type = _known_number(known, "eth_type", "dl_type")
    proto = _known_number(known, "nw_proto", "ip_proto")
    parts: dict[str, str | int] = {}
    for written, wanted in fields:
        name = _meant(written, eth_type, proto)
        if parts.setdefault(name, wanted) != wanted:
            raise TextError(f"{name}={wanted}", "the field is there twice")
    return Match(*bits, **parts)


def _known_number(known: dict[str, str | int], *names: str) -> int | None:
    for name in names:
        if name in known:
            return number(str(known[name]), name)
    return None


def _meant(name: str, eth_type: int | None, proto: int | None) -> str:
    if eth_type in (0x0806, 0x8035):
        return _FOR_ARP.get(name, name)
    end = name.removeprefix("tp_").removeprefix("tcp_").removeprefix("udp_").removeprefix("sctp_")
    if end in ("src", "dst") and name != end:
        return f"{_TRANSPORTS.get(proto or 0, 'tcp')}_{end}"
    if name in ("icmp_type", "icmp_code") and proto == 58:
        return name.replace("icmp", "icmpv6")
    return name


def parse_flow(text: str) -> Flow:
    """The flow of `ovs-ofctl` text, what `add-flow` takes or `dump-flows` writes. Raises InvalidValueError."""
    head, found, tail = _split_actions(text)
    if not found:
        raise TextError(text, "it has no actions=")
    flags, numbers, fields = FlowFlags.NONE, {}, []
    for key, value, _ in pairs(head):
        if key in _NUMBERS:
            numbers[key] = number(value, key)
        elif key in _FLAGS and not value:
            flags |= _FLAGS[key]
        elif key not in _IGNORED:
            fields.append((key, value))
    if numbers.get("table") == 255:
        del numbers["table"]  # any table, which for add-flow is the first
    match = _match(fields)
    proto = match.get("nw_proto")
    actions = parse_actions(tail, proto.value if proto else None)
    return Flow(match, actions, flags=int(flags), **numbers)


def _split_actions(text: str) -> tuple[str, bool, str]:
    for word in ("actions=", "action="):
        head, found, tail = text.partition(word)
        if found:
            return head, True, tail
    return text, False, ""


def parse_flows(lines: Iterable[str]) -> Iterator[Flow]:
    """The flows of a file's lines; empty ones, `#` comments and the first line of a dump are left out."""
    for line in lines:
        plain = line.partition("#")[0].strip()
        if plain and "reply" not in plain.partition("actions=")[0]:
            yield parse_flow(plain)
