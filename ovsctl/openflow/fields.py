"""The match fields of ovs-fields(7): names, numbers, widths, prerequisites, and their values.

One rule: a value is an int, least significant bit 0, and every other way to write it is turned into one here.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import lru_cache
from typing import SupportsInt

from ovsctl.openflow.errors import FieldError

type_ = type

NXM_OF = 0x0000
NXM_NX = 0x0001
ERICOXM = 0x1000
OXM_OF = 0x8000
PKT_REG = 0x8001
EXPERIMENTER = 0xFFFF
ONF_ID = 0x4F4E4600
NICIRA_ID = 0x00002320

FieldValue = int | str | SupportsInt | ipaddress.IPv4Network | ipaddress.IPv6Network
MatchValue = FieldValue | tuple[FieldValue, FieldValue]


class ReservedPort(IntEnum):
    """Reserved ports, in the 16-bit numbering that the `ofport` column and the NXM fields use.

    OpenFlow 1.1+ has the same ports 0xffff0000 higher; the codec converts, values never show it.
    """

    UNSET = 0xFFF7
    IN_PORT = 0xFFF8
    TABLE = 0xFFF9
    NORMAL = 0xFFFA
    FLOOD = 0xFFFB
    ALL = 0xFFFC
    CONTROLLER = 0xFFFD
    LOCAL = 0xFFFE
    NONE = 0xFFFF


_PORT_RESERVED = 0xFF00
_PORT_OFFSET = 0xFFFF0000


def port_to_wire(port: int) -> int:
    """The 32-bit OpenFlow 1.1+ number of a 16-bit port."""
    return port if port < _PORT_RESERVED else port + _PORT_OFFSET


def port_from_wire(port: int) -> int | None:
    """The 16-bit number of a 32-bit OpenFlow 1.1+ port; None where there is none."""
    if port < _PORT_RESERVED:
        return port
    port -= _PORT_OFFSET
    return port if port >= _PORT_RESERVED else None


class Format(Enum):
    """The text form of a field's value."""

    DECIMAL = "decimal"
    HEX = "hexadecimal"
    MAC = "Ethernet"
    IPV4 = "IPv4"
    IPV6 = "IPv6"
    PORT = "port"
    FRAG = "frag"
    CT_STATE = "ct state"
    TCP_FLAGS = "TCP flags"
    TUN_FLAGS = "tunnel flags"


class Needs(Enum):
    """The matches that a flow needs for the field to exist in the packet (ovs-fields(7), "Prerequisites")."""

    NOTHING = ""
    VLAN = "vlan_tci with the present bit (0x1000) set"
    ARP = "eth_type=0x0806 (ARP) or 0x8035 (RARP)"
    IPV4 = "eth_type=0x0800"
    IPV6 = "eth_type=0x86dd"
    IP = "eth_type=0x0800 or 0x86dd"
    TCP = "eth_type=0x0800 or 0x86dd, nw_proto=6 and not ip_frag=later"
    UDP = "eth_type=0x0800 or 0x86dd, nw_proto=17 and not ip_frag=later"
    SCTP = "eth_type=0x0800 or 0x86dd, nw_proto=132 and not ip_frag=later"
    ICMPV4 = "eth_type=0x0800, nw_proto=1 and not ip_frag=later"
    ICMPV6 = "eth_type=0x86dd, nw_proto=58 and not ip_frag=later"
    ND = "icmpv6_type=135 or 136, and no icmpv6_code but 0"
    ND_SOLICIT = "icmpv6_type=135, and no icmpv6_code but 0"
    ND_ADVERT = "icmpv6_type=136, and no icmpv6_code but 0"
    CT = "a ct_state of a valid connection, such as +trk+est or +trk-inv"
    CT4 = "a ct_state of a valid connection, such as +trk+est or +trk-inv, and eth_type=0x0800"
    CT6 = "a ct_state of a valid connection, such as +trk+est or +trk-inv, and eth_type=0x86dd"
    CT_PORTS = "ct_nw_proto other than 0"


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field. `bits` is its width as a sub-field, `size` the bytes it takes on the wire.

    `full` is the mask of an exact match, `limit` the largest value; most often both are all of `bits`.
    `headers` are the OXM/NXM headers (class, number, experimenter or 0) that name it, preferred first;
    `titles` the same in text ("NXM_NX_REG0"), and `aliases` its other ovs-ofctl names.
    """

    name: str
    bits: int
    size: int
    full: int
    limit: int
    headers: tuple[tuple[int, int, int], ...]
    titles: tuple[str, ...]
    needs: Needs
    format: Format
    maskable: bool
    writable: bool
    aliases: tuple[str, ...]
    order: int

    @property
    def title(self) -> str:
        """Its name where a sub-field is written: the NXM one where it has one."""
        return next((title for title in self.titles if title.startswith("NXM")), self.titles[0])

    def header(self, masked: bool = False) -> bytes:
        """The 4-byte OXM header that is preferred for it, which no experimenter's is (OpenFlow 1.5.1 §7.2.3.2)."""
        oxm_class, number, _ = self.headers[0]
        length = self.size * 2 if masked else self.size
        return (oxm_class << 16 | number << 9 | masked << 8 | length).to_bytes(4, "big")

    def __repr__(self) -> str:
        return f"Field({self.name})"

    def __reduce__(self) -> tuple[object, ...]:
        return field, (self.name,)


_OXM = "OXM_OF_"
_OF = "NXM_OF_"
_NX = "NXM_NX_"
_CLASSES = {
    "NXM_OF_": (NXM_OF, 0),
    "NXM_NX_": (NXM_NX, 0),
    "OXM_OF_": (OXM_OF, 0),
    "OXM_OF_PKT_REG": (PKT_REG, 0),
    "ERICOXM_OF_": (ERICOXM, 0),
    "ONFOXM_ET_": (EXPERIMENTER, ONF_ID),
}

# name, aliases | bits[/bytes where more] | headers, preferred first | needs | format | m(askable) w(ritable)
# In the order in which a match is written: a field after those it needs.
_TABLE = """
in_port        | 16   | NXM_OF_IN_PORT 0                              | NOTHING | PORT | w
in_port_oxm    | 32   | OXM_OF_IN_PORT 0                              | NOTHING | DECIMAL | -
conj_id        | 32   | NXM_NX_CONJ_ID 37                             | NOTHING | DECIMAL | -
tun_id tunnel_id | 64 | OXM_OF_TUNNEL_ID 38, NXM_NX_TUN_ID 16         | NOTHING | HEX | mw
tun_src        | 32   | NXM_NX_TUN_IPV4_SRC 31                        | NOTHING | IPV4 | mw
tun_dst        | 32   | NXM_NX_TUN_IPV4_DST 32                        | NOTHING | IPV4 | mw
tun_ipv6_src   | 128  | NXM_NX_TUN_IPV6_SRC 109                       | NOTHING | IPV6 | mw
tun_ipv6_dst   | 128  | NXM_NX_TUN_IPV6_DST 110                       | NOTHING | IPV6 | mw
tun_gbp_id     | 16   | NXM_NX_TUN_GBP_ID 38                          | NOTHING | DECIMAL | mw
tun_gbp_flags  | 8    | NXM_NX_TUN_GBP_FLAGS 39                       | NOTHING | HEX | mw
tun_flags      | 1/2  | NXM_NX_TUN_FLAGS 104                          | NOTHING | TUN_FLAGS | mw
metadata       | 64   | OXM_OF_METADATA 2                             | NOTHING | HEX | mw
pkt_mark       | 32   | NXM_NX_PKT_MARK 33                            | NOTHING | HEX | mw
{regs}
ct_state       | 32   | NXM_NX_CT_STATE 105                           | NOTHING | CT_STATE | m
ct_zone        | 16   | NXM_NX_CT_ZONE 106                            | NOTHING | DECIMAL | -
ct_mark        | 32   | NXM_NX_CT_MARK 107                            | NOTHING | HEX | mw
ct_label       | 128  | NXM_NX_CT_LABEL 108                           | NOTHING | HEX | mw
eth_dst dl_dst | 48   | OXM_OF_ETH_DST 3, NXM_OF_ETH_DST 1            | NOTHING | MAC | mw
eth_src dl_src | 48   | OXM_OF_ETH_SRC 4, NXM_OF_ETH_SRC 2            | NOTHING | MAC | mw
eth_type dl_type | 16 | OXM_OF_ETH_TYPE 5, NXM_OF_ETH_TYPE 3          | NOTHING | HEX | -
ct_nw_src      | 32   | NXM_NX_CT_NW_SRC 120                          | CT4     | IPV4 | m
ct_nw_dst      | 32   | NXM_NX_CT_NW_DST 121                          | CT4     | IPV4 | m
ct_ipv6_src    | 128  | NXM_NX_CT_IPV6_SRC 122                        | CT6     | IPV6 | m
ct_ipv6_dst    | 128  | NXM_NX_CT_IPV6_DST 123                        | CT6     | IPV6 | m
ct_nw_proto    | 8    | NXM_NX_CT_NW_PROTO 119                        | CT      | DECIMAL | -
ct_tp_src      | 16   | NXM_NX_CT_TP_SRC 124                          | CT_PORTS | DECIMAL | m
ct_tp_dst      | 16   | NXM_NX_CT_TP_DST 125                          | CT_PORTS | DECIMAL | m
vlan_tci       | 16   | NXM_OF_VLAN_TCI 4                             | NOTHING | HEX | mw
vlan_vid       | 12/2 | OXM_OF_VLAN_VID 6                             | NOTHING | DECIMAL | mw
vlan_pcp       | 3    | OXM_OF_VLAN_PCP 7                             | VLAN    | DECIMAL | w
ip_src nw_src  | 32   | OXM_OF_IPV4_SRC 11, NXM_OF_IP_SRC 7           | IPV4    | IPV4 | mw
ip_dst nw_dst  | 32   | OXM_OF_IPV4_DST 12, NXM_OF_IP_DST 8           | IPV4    | IPV4 | mw
ipv6_src       | 128  | OXM_OF_IPV6_SRC 26, NXM_NX_IPV6_SRC 19        | IPV6    | IPV6 | mw
ipv6_dst       | 128  | OXM_OF_IPV6_DST 27, NXM_NX_IPV6_DST 20        | IPV6    | IPV6 | mw
ip_frag nw_frag | 2   | NXM_NX_IP_FRAG 26                             | IP      | FRAG | m
nw_tos         | 8    | NXM_OF_IP_TOS 5                               | IP      | DECIMAL | w
ip_dscp        | 6    | OXM_OF_IP_DSCP 8                              | IP      | DECIMAL | w
nw_ecn ip_ecn  | 2    | OXM_OF_IP_ECN 9, NXM_NX_IP_ECN 28             | IP      | DECIMAL | w
nw_ttl         | 8    | NXM_NX_IP_TTL 29                              | IP      | DECIMAL | w
ipv6_label     | 20/4 | OXM_OF_IPV6_FLABEL 28, NXM_NX_IPV6_LABEL 27   | IPV6    | HEX | mw
nw_proto ip_proto | 8 | OXM_OF_IP_PROTO 10, NXM_OF_IP_PROTO 6         | IP      | DECIMAL | -
tcp_src        | 16   | OXM_OF_TCP_SRC 13, NXM_OF_TCP_SRC 9           | TCP     | DECIMAL | mw
tcp_dst        | 16   | OXM_OF_TCP_DST 14, NXM_OF_TCP_DST 10          | TCP     | DECIMAL | mw
tcp_flags      | 12/2 | OXM_OF_TCP_FLAGS 42, NXM_NX_TCP_FLAGS 34, ONFOXM_ET_TCP_FLAGS 42 | TCP | TCP_FLAGS | m
udp_src        | 16   | OXM_OF_UDP_SRC 15, NXM_OF_UDP_SRC 11          | UDP     | DECIMAL | mw
udp_dst        | 16   | OXM_OF_UDP_DST 16, NXM_OF_UDP_DST 12          | UDP     | DECIMAL | mw
sctp_src       | 16   | OXM_OF_SCTP_SRC 17                            | SCTP    | DECIMAL | mw
sctp_dst       | 16   | OXM_OF_SCTP_DST 18                            | SCTP    | DECIMAL | mw
icmp_type      | 8    | OXM_OF_ICMPV4_TYPE 19, NXM_OF_ICMP_TYPE 13    | ICMPV4  | DECIMAL | w
icmp_code      | 8    | OXM_OF_ICMPV4_CODE 20, NXM_OF_ICMP_CODE 14    | ICMPV4  | DECIMAL | w
icmpv6_type    | 8    | OXM_OF_ICMPV6_TYPE 29, NXM_NX_ICMPV6_TYPE 21  | ICMPV6  | DECIMAL | w
icmpv6_code    | 8    | OXM_OF_ICMPV6_CODE 30, NXM_NX_ICMPV6_CODE 22  | ICMPV6  | DECIMAL | w
nd_target      | 128  | OXM_OF_IPV6_ND_TARGET 31, NXM_NX_ND_TARGET 23 | ND      | IPV6 | mw
nd_sll         | 48   | OXM_OF_IPV6_ND_SLL 32, NXM_NX_ND_SLL 24       | ND_SOLICIT | MAC | mw
nd_tll         | 48   | OXM_OF_IPV6_ND_TLL 33, NXM_NX_ND_TLL 25       | ND_ADVERT | MAC | mw
nd_reserved    | 32   | ERICOXM_OF_ICMPV6_ND_RESERVED 1               | ND      | DECIMAL | w
nd_options_type | 8   | ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE 2           | ND      | DECIMAL | w
arp_op         | 16   | OXM_OF_ARP_OP 21, NXM_OF_ARP_OP 15            | ARP     | DECIMAL | w
arp_spa        | 32   | OXM_OF_ARP_SPA 22, NXM_OF_ARP_SPA 16          | ARP     | IPV4 | mw
arp_tpa        | 32   | OXM_OF_ARP_TPA 23, NXM_OF_ARP_TPA 17          | ARP     | IPV4 | mw
arp_sha        | 48   | OXM_OF_ARP_SHA 24, NXM_NX_ARP_SHA 17          | ARP     | MAC | mw
arp_tha        | 48   | OXM_OF_ARP_THA 25, NXM_NX_ARP_THA 18          | ARP     | MAC | mw
"""
_REGS = "\n".join(
    [f"reg{n} | 32 | NXM_NX_REG{n} {n} | NOTHING | HEX | mw" for n in range(16)]
    + [f"xreg{n} | 64 | OXM_OF_PKT_REG{n} {n} | NOTHING | HEX | mw" for n in range(8)]
    + [f"xxreg{n} | 128 | NXM_NX_XXREG{n} {111 + n} | NOTHING | HEX | mw" for n in range(4)]
)


def _headers(text: str) -> Iterable[tuple[str, tuple[int, int, int]]]:
    for part in text.split(","):
        title, number = part.split()
        prefix = max((p for p in _CLASSES if title.startswith(p)), key=len)
        oxm_class, experimenter = _CLASSES[prefix]
        yield title, (oxm_class, int(number), experimenter)


# Open vSwitch keeps 8 bits of arp_op and of ct_state, and vlan_vid has a 13th bit for "there is a tag".
_FULL = {"ct_state": 0xFF, "vlan_vid": 0x1FFF}
_LIMIT = {"arp_op": 0xFF}


def _field(order: int, line: str) -> Field:
    names, width, headers, needs, form, access = (part.strip() for part in line.split("|"))
    bits, _, size = width.partition("/")
    named = list(_headers(headers))
    name = names.split()[0]
    full = _FULL.get(name, (1 << int(bits)) - 1)
    return Field(
        name=name,
        full=full,
        limit=_LIMIT.get(name, full),
        bits=int(bits),
        size=int(size) if size else (int(bits) + 7) // 8,
        headers=tuple(header for _, header in named),
        titles=tuple(title for title, _ in named),
        needs=Needs[needs],
        format=Format[form],
        maskable="m" in access,
        writable="w" in access,
        aliases=tuple(names.split()[1:]),
        order=order,
    )


FIELDS: dict[str, Field] = {
    f.name: f for f in (_field(n, line) for n, line in enumerate(_TABLE.format(regs=_REGS).strip().splitlines()))
}
_BY_NAME = FIELDS | {alias: f for f in FIELDS.values() for alias in f.aliases}
_BY_TITLE = {title: f for f in FIELDS.values() for title in f.titles}
# (class, number, experimenter) to the field, and the header's length to check it by.
BY_HEADER: dict[tuple[int, int, int], Field] = {h: f for f in FIELDS.values() for h in f.headers}


def field(name: str) -> Field:
    """The field of ovs-fields(7) with this name, any it has. Raises FieldError with the nearest names."""
    found = _BY_NAME.get(name) or _BY_TITLE.get(name)
    if found is None:
        import difflib  # noqa: PLC0415 - only on the way to an error

        near = difflib.get_close_matches(name, _BY_NAME, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise FieldError(name, f"no such field, or one that ovsctl does not support{hint}")
    return found


def is_field(name: str) -> bool:
    """Whether `field` would find it."""
    return name in _BY_NAME or name in _BY_TITLE


# ---- values ----

CT_STATE_BITS = ("new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat")
TCP_FLAG_BITS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]")
TUN_FLAG_BITS = ("oam",)
_FLAG_BITS = {
    Format.CT_STATE: CT_STATE_BITS,
    Format.TCP_FLAGS: TCP_FLAG_BITS,
    Format.TUN_FLAGS: TUN_FLAG_BITS,
}
# ip_frag (ovs-fields(7)): bit 0 is "a fragment", bit 1 "not the first one", which implies bit 0.
FRAG_NAMES = {"no": (0, 3), "yes": (1, 1), "first": (1, 3), "later": (3, 3), "not_later": (0, 2)}
_FLAG = re.compile(r"([+-])([a-z]+|\[\d+\])")
_PORTS = {port.name: int(port) for port in ReservedPort}


def parse_mac(text: str) -> int:
    """The number of "0a:00:00:00:00:01"; ValueError for anything else."""
    digits = text.replace(":", "")
    if len(digits) == 12 and text[2::3] == ":::::" and digits.isalnum():  # as nearly all are written
        return int(digits, 16)
    octets = text.split(":")
    if len(octets) != 6 or any(len(octet) > 2 for octet in octets):
        raise ValueError("not a MAC address")
    value = 0
    for octet in octets:
        value = value << 8 | int(octet, 16)
    return value


def format_mac(value: int) -> str:
    """The MAC address as text."""
    text = f"{value:012x}"
    return ":".join(text[n : n + 2] for n in range(0, 12, 2))


def _parse_flags(f: Field, text: str) -> tuple[int, int]:
    """ "+trk-new" is a value under a mask, "trk|est" the whole field."""
    bits = _FLAG_BITS[f.format]
    value = mask = end = 0
    if text[:1] not in "+-":
        names = text.split("|")
        if not set(names) <= set(bits):
            raise FieldError(f.name, f"{text!r} is neither a number nor flags of {', '.join(bits)}")
        return sum(1 << bits.index(name) for name in set(names)), f.full
    for found in _FLAG.finditer(text):
        sign, name = found.groups()
        if found.start() != end or name not in bits:
            break
        bit = 1 << bits.index(name)
        if mask & bit:
            raise FieldError(f.name, f"{name} is there twice in {text!r}")
        mask |= bit
        value |= bit if sign == "+" else 0
        end = found.end()
    if end != len(text):
        raise FieldError(f.name, f"{text!r} is not flags like +{'-'.join(bits[:2])}; it has {', '.join(bits)}")
    return value, mask


def _parse_word(f: Field, text: str) -> int:
    """One number, address or name."""
    form = f.format
    try:
        if form is Format.MAC:
            return parse_mac(text)
        if form is Format.IPV4 and "." in text:
            return int(ipaddress.IPv4Address(text))
        if form is Format.IPV6 and ":" in text:
            return int(ipaddress.IPv6Address(text))
        if form is Format.PORT and text.upper() in _PORTS:
            return _PORTS[text.upper()]
        return int(text, 8 if text[:1] == "0" and text.isdecimal() else 0)
    except ValueError:
        raise FieldError(f.name, f"{text!r} is not a value of it ({form.value})") from None


@lru_cache(maxsize=65536)
def _parse_text(f: Field, text: str) -> tuple[int, int | None]:
    if text == "*":
        return 0, 0
    if f.format is Format.FRAG and text in FRAG_NAMES:
        return FRAG_NAMES[text]
    if f.format in _FLAG_BITS and text and not text[0].isdecimal():
        return _parse_flags(f, text)
    word, slash, mask = text.partition("/")
    if not slash:
        return _parse_word(f, word), None
    if f.format in (Format.IPV4, Format.IPV6) and mask.isdecimal():
        length = int(mask)
        if length > f.bits:
            raise FieldError(f.name, f"prefix length {length} is more than its {f.bits} bits")
        return _parse_word(f, word), f.full - (f.full >> length)
    return _parse_word(f, word), _parse_word(f, mask)


def parse_value(f: Field, value: MatchValue) -> tuple[int, int]:
    """(value, mask) of what means one: a number, text as in ovs-ofctl, an address, a network, a pair.

    Bits outside the mask come back cleared. Raises FieldError for what does not fit the field's width, or a
    mask on a field that takes none.
    """
    mask: int | None = None
    if type_(value) is int:
        number = value
    elif isinstance(value, str):
        number, mask = _parse_text(f, value)
    elif isinstance(value, tuple):
        if len(value) != 2:
            raise FieldError(f.name, f"{value!r} is not a pair of value and mask")
        number, mask = _number(f, value[0]), _number(f, value[1])
    elif isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        number, mask = int(value.network_address), int(value.netmask)
    else:
        number = _number(f, value)
    full = f.full
    if mask is None:
        mask = full
    elif mask != full:
        if mask < 0 or (mask > full and mask != (1 << f.size * 8) - 1):
            raise FieldError(f.name, f"mask {mask:#x} is more than {full:#x}")
        mask &= full
        if not f.maskable and mask not in (0, full):
            raise FieldError(f.name, "it takes no mask: match the whole of it, or not at all")
    if not 0 <= number <= f.limit:
        raise FieldError(f.name, f"{number:#x} is not from 0 to {f.limit:#x}")
    return number & mask, mask


def _number(f: Field, value: object) -> int:
    if type(value) is int:  # first, since asking for a protocol such as SupportsInt is slow
        return value
    if isinstance(value, str):
        return _parse_word(f, value)
    if isinstance(value, float) or not isinstance(value, SupportsInt):
        raise FieldError(f.name, f"{value!r} is not a value of it ({f.format.value})")
    return int(value)


def format_value(f: Field, value: int, mask: int | None = None) -> str:
    """The value as ovs-ofctl writes it, with its mask where it has one; parse_value reads it back."""
    if f.format is Format.FRAG and mask is not None:
        found = [name for name, pair in FRAG_NAMES.items() if pair == (value, mask)]
        return found[0] if found else f"{value:#x}/{mask:#x}"
    if mask is None or mask == f.full:
        return _format_word(f, value)
    if f.format in _FLAG_BITS:
        names = _FLAG_BITS[f.format]
        return "".join(("+" if value >> n & 1 else "-") + name for n, name in enumerate(names) if mask >> n & 1)
    if f.format in (Format.IPV4, Format.IPV6):
        inverse = f.full ^ mask
        if inverse & (inverse + 1) == 0:
            return f"{_format_word(f, value)}/{f.bits - inverse.bit_length()}"
    if f.format is Format.DECIMAL:
        return f"{value}/{mask:#x}"
    return f"{_format_word(f, value)}/{_format_word(f, mask)}"


def _format_word(f: Field, value: int) -> str:
    form = f.format
    if form is Format.DECIMAL:
        return str(value)
    if form is Format.MAC:
        return format_mac(value)
    if form is Format.IPV4:
        return str(ipaddress.IPv4Address(value))
    if form is Format.IPV6:
        return socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))
    if form is Format.PORT:
        return format_port(value)
    if form in _FLAG_BITS:
        names = _FLAG_BITS[form]
        return "|".join(name for n, name in enumerate(names) if value >> n & 1) or "0"
    return f"{value:#x}" if value else "0"


def format_port(port: int) -> str:
    """A port's number, or its name where it is a reserved one."""
    return ReservedPort(port).name if port in ReservedPort._value2member_map_ else str(port)


def parse_port(text: str) -> int:
    """The port of its number or reserved name; FieldError for anything else."""
    return parse_value(FIELDS["in_port"], text)[0]


# ---- sub-fields ----


@dataclass(frozen=True, slots=True, eq=False)
class Subfield:
    """Bits `start` to `end` of a field, both included; the least significant is 0. Raises FieldError."""

    field: Field
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end < self.field.bits:
            raise FieldError(self.field.name, f"it has bits 0 to {self.field.bits - 1}, not {self.start} to {self.end}")

    @property
    def bits(self) -> int:
        """Its number of bits."""
        return self.end - self.start + 1

    @property
    def mask(self) -> int:
        """Its bits, set, in the whole field."""
        return (1 << self.end + 1) - (1 << self.start)

    @property
    def whole(self) -> bool:
        """Whether it is all of the field."""
        return self.start == 0 and self.end == self.field.bits - 1

    def place(self, value: int) -> int:
        """`value` moved to where it is in the whole field. FieldError if it does not fit."""
        if value < 0 or value.bit_length() > self.bits:
            raise FieldError(str(self), f"{value:#x} does not fit its {self.bits} bits")
        return value << self.start

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Subfield):
            return NotImplemented
        return (self.field, self.start, self.end) == (other.field, other.start, other.end)

    def __hash__(self) -> int:
        return hash((self.field.name, self.start, self.end))

    def __str__(self) -> str:
        if self.whole:
            return f"{self.field.title}[]"
        if self.start == self.end:
            return f"{self.field.title}[{self.start}]"
        return f"{self.field.title}[{self.start}..{self.end}]"


class RegField(Subfield):
    """Bits `start` to `end`, both included, of register `reg`."""

    __slots__ = ()

    def __init__(self, reg: int, start: int = 0, end: int = 31) -> None:
        if not 0 <= reg <= 15:
            raise FieldError(f"reg{reg}", "registers are reg0 to reg15")
        super().__init__(FIELDS[f"reg{reg}"], start, end)

    def __reduce__(self) -> tuple[object, ...]:
        return Subfield, (self.field, self.start, self.end)


_SUBFIELD = re.compile(r"([A-Za-z]\w*)(?:\[(?:(\d+)(?:\.\.(\d+))?)?\])?")


def subfield(value: Subfield | Field | str) -> Subfield:
    """A sub-field of anything that names one: "reg0[21..22]", "NXM_NX_REG0[]", "eth_src", a Field."""
    if isinstance(value, Subfield):
        return value
    if isinstance(value, Field):
        return Subfield(value, 0, value.bits - 1)
    found = _SUBFIELD.fullmatch(value)
    if found is None:
        raise FieldError(value, 'not a sub-field: write "reg0", "reg0[5]" or "reg0[21..22]"')
    name, start, end = found.groups()
    f = field(name)
    if start is None:
        return Subfield(f, 0, f.bits - 1)
    return Subfield(f, int(start), int(end or start))
