"""Filters of packets in the language of pcap-filter(7), as far as a switch can match them.

One rule: a filter is a decision list, matches of which the first that holds decides, so that `not` needs no match of its own. A switch has them
as flows of falling priority. What no list of at most MAX_RULES matches can say is refused, with its place.

It differs from libpcap in what Open vSwitch reads: headers behind one VLAN tag and behind extension headers of IPv6 count, with or without `vlan`;
ports are those of whole packets and first fragments.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

MAX_TEXT, MAX_WORDS, MAX_RULES = 1024, 100, 256

# Fields by the names of ovs-fields(7), with their widths in bits.
WIDTHS = {
    "eth_src": 48, "eth_dst": 48, "eth_type": 16, "vlan_tci": 16, "ip_src": 32, "ip_dst": 32, "ipv6_src": 128, "ipv6_dst": 128,
    "arp_spa": 32, "arp_tpa": 32, "nw_proto": 8, "ip_frag": 2, "tcp_src": 16, "tcp_dst": 16, "udp_src": 16, "udp_dst": 16,
    "sctp_src": 16, "sctp_dst": 16, "tcp_flags": 12, "icmp_type": 8, "icmp_code": 8, "icmpv6_type": 8, "icmpv6_code": 8,
}  # fmt: skip
ETH_TYPES = {"ip": 0x0800, "arp": 0x0806, "rarp": 0x8035, "ip6": 0x86DD}
PROTOCOLS = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "pim": 103, "vrrp": 112, "sctp": 132,
}  # fmt: skip
PORTED = ("tcp", "udp", "sctp")
LATER = ("ip_frag", (0, 2))  # not a later fragment: it has no ports
TAG_PRESENT = 0x1000  # of vlan_tci
GROUP_BIT = 1 << 40  # 802-2014 §8.2.2
TCP_FLAGS = {
    f"tcp-{name}": 1 << bit for bit, name in enumerate(("fin", "syn", "rst", "push", "ack", "urg", "ece", "cwr"))
}
MESSAGES = {
    "icmp-echoreply": 0, "icmp-unreach": 3, "icmp-redirect": 5, "icmp-echo": 8, "icmp-timxceed": 11, "icmp6-destinationunreach": 1,
    "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-routersolicit": 133,
    "icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
}  # fmt: skip
# The bytes of headers that a switch can match: by protocol and offset the field, of its low eight bits.
BYTES = {
    ("tcp", "13"): "tcp_flags", ("tcp", "tcpflags"): "tcp_flags",
    ("icmp", "0"): "icmp_type", ("icmp", "icmptype"): "icmp_type", ("icmp", "1"): "icmp_code", ("icmp", "icmpcode"): "icmp_code",
    ("icmp6", "0"): "icmpv6_type", ("icmp6", "icmp6type"): "icmpv6_type",
    ("icmp6", "1"): "icmpv6_code", ("icmp6", "icmp6code"): "icmpv6_code",
}  # fmt: skip
# Words of pcap-filter(7) that a switch has no match for, each with the reason.
UNMATCHED = {
    **dict.fromkeys(("less", "greater", "len"), "a switch does not match the length of a frame"),
    **dict.fromkeys(("gateway",), "a switch looks up no names"),
    **dict.fromkeys(("protochain",), "a switch reads headers up to the first that it does not know"),
    **dict.fromkeys(("inbound", "outbound"), "say it by 'direction'"),
    **dict.fromkeys(("mpls", "pppoes", "pppoed", "geneve", "vxlan"), "a switch does not read what is behind that header"),
    **dict.fromkeys(("decnet", "atalk", "aarp", "ipx", "netbeui", "stp", "iso", "lat", "moprc", "mopdl"), "say it by its number: ether proto"),
    **dict.fromkeys(("wlan", "type", "subtype", "dir", "addr1", "addr2", "addr3", "addr4", "ra", "ta"), "frames here are Ethernet"),
    **dict.fromkeys(("ifname", "on", "rnr", "rulenum", "reason", "rset", "ruleset", "srnr", "subrulenum", "action"), "that is pf's"),
    **dict.fromkeys(("llc", "fddi", "tr", "ppp", "slip", "link"), "frames here are Ethernet"),
}  # fmt: skip

Bits = tuple[int, int]  # value and mask
Match = Mapping[str, Bits]
_WORD = re.compile(r"\s*(?:(&&|\|\||==|!=|<=|>=|<<|>>|[()\[\]!=<>&|+*/^%])|([\w.:\\/-]+)|(\S))", re.ASCII)
_NUMBER = re.compile(r"0x[0-9a-f]{1,8}|[0-9]{1,10}", re.ASCII | re.IGNORECASE)
_MAC = re.compile(r"(?:[0-9a-f]{1,2}[:-]){5}[0-9a-f]{1,2}", re.ASCII | re.IGNORECASE)


class FilterRefused(ValueError):
    """A filter that is wrong, or that a switch cannot match. at, length: the place in its text, from 0."""

    def __init__(self, text: str, at: int, length: int, reason: str) -> None:
        self.text, self.at, self.length, self.reason = text, at, max(1, length), reason
        super().__init__(f"{reason}, at character {at + 1}: {text[at : at + length] or 'the end'}")

    @property
    def excerpt(self) -> str:
        """The filter with a caret under the place."""
        return f"{self.text}\n{' ' * self.at}{'^' * self.length}"


class FilterRule(NamedTuple):
    """A match by fields of ovs-fields(7), each with value and mask, and whether packets that it holds for, and no rule before it, are wanted."""

    match: Match
    wanted: bool


Rules = tuple[FilterRule, ...]
ALL: Rules = (FilterRule({}, True),)


@dataclass(frozen=True, slots=True)
class PacketFilter:
    """A filter: its text, and the rules of which the first that holds decides. Where none holds a packet is not wanted."""

    text: str
    rules: Rules


def packet_filter(text: str) -> PacketFilter:
    """The filter that a text says. Raises FilterRefused."""
    if len(text) > MAX_TEXT:
        raise FilterRefused(text[:MAX_TEXT], 0, 1, f"a filter has at most {MAX_TEXT} characters, this one {len(text)}")
    rules = _Parser(text).parse()
    if not any(rule.wanted for rule in rules):
        raise FilterRefused(text, 0, len(text), "no packet is like that")
    return PacketFilter(text, rules)


def meet(first: Match, other: Match) -> Match | None:
    """What both hold for; None where that is nothing."""
    met = dict(first)
    for name, (value, mask) in other.items():
        before, masked = met.get(name, (0, 0))
        if (before ^ value) & masked & mask:
            return None
        met[name] = before | value, masked | mask
    return met


def _covers(wide: Match, narrow: Match) -> bool:
    """Whether one holds wherever another does."""
    for name, (value, mask) in wide.items():
        has, masked = narrow.get(name, (0, 0))
        if mask & ~masked or has & mask != value:
            return False
    return True


def _tidied(rules: Rules) -> Rules:
    """The same list without rules that never decide."""
    kept: list[FilterRule] = []
    for rule in rules:
        if not any(_covers(before.match, rule.match) for before in kept):
            kept.append(rule)
    while kept and not kept[-1].wanted:
        kept.pop()
    return tuple(kept)


def _under(rules: Rules, within: FilterRule, *, other: bool) -> Rules:
    """A list for the packets of a match; where it decides nothing they are not wanted."""
    found = [FilterRule(met, rule.wanted) for rule in rules if (met := meet(within.match, rule.match)) is not None]
    return (*found, FilterRule(within.match, other))


class _Term(NamedTuple):
    """A word of the text, with its place. symbol: it is an operator or a parenthesis."""

    text: str
    at: int
    symbol: bool = False

    @property
    def low(self) -> str:
        return self.text.lower()


@dataclass(frozen=True, slots=True)
class _Qualifiers:
    """What stands before a value, and goes on to hold for values after `and` and `or` that have none."""

    proto: str = ""
    direction: str = ""
    type: str = ""


class _Parser:
    """Recursive descent. `and` and `or` have the same precedence and go from left to right, as in pcap-filter(7)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = [*self._split()]
        self._next = 0
        self._last = _Qualifiers()
        if len(self._words) > MAX_WORDS:
            raise self._refused(self._words[MAX_WORDS], f"a filter has at most {MAX_WORDS} words")

    def parse(self) -> Rules:
        if not self._words:
            raise FilterRefused(self._text, 0, 1, "an empty filter: leave it out for all packets")
        rules = self._expression()
        if (word := self._peek()) is not None:
            raise self._refused(word, "wanted 'and' or 'or'" if word.text != ")" else "no '(' is open here")
        return rules

    # Words

    def _split(self) -> list[_Term]:
        words, at, end = [], 0, len(self._text.rstrip())
        while at < end:
            found = _WORD.match(self._text, at)
            if found is None:
                raise FilterRefused(self._text, at, 1, "no word of a filter")
            number = found.lastindex or 0
            word = _Term(found.group(number), found.start(number), number == 1)
            if number == 3:
                raise self._refused(word, "no character of a filter")
            words.append(word)
            at = found.end()
        return words

    def _peek(self, ahead: int = 0) -> _Term | None:
        place = self._next + ahead
        return self._words[place] if place < len(self._words) else None

    def _is(self, *words: str, ahead: int = 0) -> bool:
        found = self._peek(ahead)
        return found is not None and found.low in words

    def _take(self, wanted: str) -> _Term:
        word = self._peek()
        if word is None:
            raise FilterRefused(self._text, len(self._text.rstrip()), 0, f"wanted {wanted}")
        self._next += 1
        return word

    def _taken(self, *words: str) -> bool:
        if not self._is(*words):
            return False
        self._next += 1
        return True

    def _refused(self, word: _Term, reason: str) -> FilterRefused:
        return FilterRefused(self._text, word.at, len(word.text), reason)

    # Booleans

    def _expression(self) -> Rules:
        rules = self._negation()
        while self._is("and", "&&", "or", "||"):
            joint = self._take("")
            rules = self._joined(joint, rules, self._negation())
        return rules

    def _joined(self, joint: _Term, first: Rules, second: Rules) -> Rules:
        """`and` asks the second list where the first one wants a packet, `or` where it does not."""
        both = joint.low in ("and", "&&")
        found: dict[tuple[frozenset[tuple[str, Bits]], bool], FilterRule] = {}
        for rule in (*first, FilterRule({}, False)):
            for part in _under(second, rule, other=False) if rule.wanted is both else (rule,):
                found.setdefault((frozenset(part.match.items()), part.wanted), part)
            if len(found) > 4 * MAX_RULES:
                break
        return self._bounded(joint, tuple(found.values()))

    def _bounded(self, word: _Term, rules: Rules) -> Rules:
        if len(rules) > 4 * MAX_RULES or len(rules := _tidied(rules)) > MAX_RULES:
            raise self._refused(word, f"a switch needs more than {MAX_RULES} matches for it")
        return rules

    def _negation(self) -> Rules:
        odd = False
        while self._taken("not", "!"):
            odd = not odd
        if self._is("("):
            opened = self._take("")
            rules = self._expression()
            if not self._taken(")"):
                raise self._refused(opened, "this '(' is not closed")
        else:
            rules = self._primitive()
        return _tidied((*(FilterRule(rule.match, not rule.wanted) for rule in rules), *ALL)) if odd else rules

    # Primitives

    def _primitive(self) -> Rules:
        first = self._peek() or self._take("a packet's property")
        if first.symbol:
            raise self._refused(first, "wanted a packet's property, as 'tcp port 443' or 'host 10.0.0.1'")
        if first.low in UNMATCHED:
            raise self._refused(first, f"no flow can match it: {UNMATCHED[first.low]}")
        if self._is("vlan"):
            return self._vlan()
        if self._is("[", ahead=1):
            return self._byte()
        asked = self._qualifiers()
        if asked is None:
            asked = self._last
            value = self._take("a value")
            if asked == _Qualifiers() and not _is_value(value.text):
                raise self._refused(value, "no word of a filter that a switch can match; names are not looked up")
            return self._valued(replace(asked, type=asked.type or "host"), value)
        if self._is("broadcast", "multicast"):
            return self._to_many(asked, self._take(""))
        word = self._peek()
        if not asked.type and not asked.direction and (word is None or not _is_value(word.text)):
            self._last = asked
            return self._named(asked, first)
        value = self._take(f"a value for '{asked.type or 'host'}'")
        if value.low in UNMATCHED:
            raise self._refused(value, f"no flow can match it: {UNMATCHED[value.low]}")
        asked = replace(asked, type=asked.type or "host")
        self._last = asked
        return self._valued(asked, value)

    def _qualifiers(self) -> _Qualifiers | None:
        start = self._next
        proto = self._take("").low if self._is("ether", *ETH_TYPES, *PROTOCOLS) else ""
        direction = ""
        if self._is("src", "dst"):
            direction = self._take("").low
            if self._is("or", "and") and self._is("src", "dst", ahead=1) and not self._is(direction, ahead=1):
                direction = "either" if self._take("").low == "or" else "both"
                self._take("")
        type = self._take("").low if self._is("host", "net", "port", "portrange", "proto") else ""
        if self._next == start and not self._is("broadcast", "multicast"):
            return None
        return _Qualifiers(proto, direction, type)

    def _named(self, asked: _Qualifiers, first: _Term) -> Rules:
        """A protocol alone."""
        if asked.proto == "ether":
            raise self._refused(first, "wanted 'ether host', 'ether proto', 'ether broadcast' or 'ether multicast'")
        if asked.proto in ETH_TYPES:
            return _wanted({"eth_type": _exact("eth_type", ETH_TYPES[asked.proto])})
        return _protocol(PROTOCOLS[asked.proto], ("ip", "ip6"))

    def _to_many(self, asked: _Qualifiers, word: _Term) -> Rules:
        many = {"ip": {"ip_dst": (0xE0000000, 0xF0000000)}, "ip6": {"ipv6_dst": (0xFF << 120, 0xFF << 120)}}
        if asked.direction or asked.type:
            raise self._refused(word, f"'{word.low}' stands alone, or after 'ether', 'ip' or 'ip6'")
        if asked.proto in ("", "ether"):
            group = (GROUP_BIT, GROUP_BIT) if word.low == "multicast" else _exact("eth_dst", (1 << 48) - 1)
            return _wanted({"eth_dst": group})
        if asked.proto not in many or word.low == "broadcast":
            raise self._refused(
                word, "no flow can match it: a switch knows no netmask; say 'ether broadcast' or 'dst host'"
            )
        return _wanted({"eth_type": _exact("eth_type", ETH_TYPES[asked.proto]), **many[asked.proto]})

    def _vlan(self) -> Rules:
        self._take("")
        word = self._peek()
        if word is None or not _NUMBER.fullmatch(word.text):
            return _wanted({"vlan_tci": (TAG_PRESENT, TAG_PRESENT)})
        tag = self._number(self._take(""), 4095)
        return _wanted({"vlan_tci": (TAG_PRESENT | tag, 0x1FFF)})

    def _byte(self) -> Rules:
        """A relation about a byte of a header, as `tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn`."""
        proto = self._take("")
        self._take("")
        offset = self._take("the number of a byte")
        field = BYTES.get((proto.low, offset.low))
        if field is None or not self._is("]"):
            raise self._refused(
                proto,
                "no flow can match it: of the bytes of headers only tcp[tcpflags], icmp[icmptype], icmp[icmpcode] and those of icmp6",
            )
        self._take("")
        mask = self._constant() if self._taken("&") else 0xFF
        relation = self._take("'=' or '!='")
        if relation.text not in ("=", "==", "!="):
            raise self._refused(relation, "no flow can match it: compare by '=' or '!='")
        value = self._constant()
        protocol = _protocol(
            PROTOCOLS[proto.low],
            ("ip6",) if proto.low == "icmp6" else ("ip",) if proto.low == "icmp" else ("ip", "ip6"),
        )
        whole = [found for rule in protocol if (found := meet(rule.match, dict((LATER,)))) is not None]
        if value & ~mask:
            return () if relation.text != "!=" else tuple(FilterRule(match, True) for match in whole)
        equal = [met for match in whole if (met := meet(match, {field: (value, mask)})) is not None]
        if relation.text != "!=":
            return tuple(FilterRule(match, True) for match in equal)
        return (*(FilterRule(match, False) for match in equal), *(FilterRule(match, True) for match in whole))

    def _constant(self) -> int:
        """A number, or names joined by '|', in parentheses or not."""
        opened = self._taken("(")
        value = 0
        while True:
            word = self._take("a number")
            named = (TCP_FLAGS | MESSAGES).get(word.low)
            value |= named if named is not None else self._number(word, 0xFF)
            if not opened or not self._taken("|"):
                break
        if opened and not self._taken(")"):
            raise self._refused(self._peek() or word, "wanted ')'")
        return value

    def _number(self, word: _Term, most: int) -> int:
        if not _NUMBER.fullmatch(word.text):
            raise self._refused(word, "wanted a number; names are not looked up")
        if (value := int(word.text, 16 if word.low.startswith("0x") else 10)) > most:
            raise self._refused(word, f"at most {most} here")
        return value

    def _valued(self, asked: _Qualifiers, value: _Term) -> Rules:
        match asked.type:
            case "port" | "portrange":
                return self._ports(asked, value)
            case "proto":
                return self._by_protocol(asked, value)
            case _:
                return self._addressed(asked, value)

    def _by_protocol(self, asked: _Qualifiers, value: _Term) -> Rules:
        named = value.low.lstrip("\\")
        if asked.direction or asked.proto not in ("", "ether", "ip", "ip6"):
            raise self._refused(value, "'proto' stands after 'ether', 'ip', 'ip6', or alone")
        if asked.proto == "ether":
            number = ETH_TYPES[named] if named in ETH_TYPES else self._number(value, 0xFFFF)
            if number < 0x600:
                raise self._refused(value, "no flow can match it: Ethernet types begin with 0x600")
            return _wanted({"eth_type": _exact("eth_type", number)})
        number = PROTOCOLS[named] if named in PROTOCOLS else self._number(value, 0xFF)
        return _protocol(number, (asked.proto,) if asked.proto else ("ip", "ip6"))

    def _ports(self, asked: _Qualifiers, value: _Term) -> Rules:
        if asked.proto not in ("", "ip", "ip6", *PORTED):
            raise self._refused(value, f"'{asked.proto}' has no ports")
        first, dash, last = value.text.partition("-")
        if dash and asked.type == "port":
            raise self._refused(value, "say 'portrange' for several ports")
        low = self._number(_Term(first, value.at), 0xFFFF)
        high = self._number(_Term(last, value.at + len(first) + 1), 0xFFFF) if dash else low
        blocks = _blocks(min(low, high), max(low, high))
        versions = (asked.proto,) if asked.proto in ETH_TYPES else ("ip", "ip6")
        found: list[FilterRule] = []
        for version, proto in product(versions, (asked.proto,) if asked.proto in PORTED else PORTED):
            base = {**_over(PROTOCOLS[proto], version), LATER[0]: LATER[1]}
            found += (
                FilterRule({**base, **sides}, True)
                for sides in _sides(asked.direction, f"{proto}_src", f"{proto}_dst", blocks)
            )
        return self._bounded(value, tuple(found))

    def _addressed(self, asked: _Qualifiers, value: _Term) -> Rules:
        if asked.proto == "ether":
            if asked.type != "host" or not _MAC.fullmatch(value.text):
                raise self._refused(value, "wanted a MAC address, as ether host 0a:00:00:00:00:01")
            mac = int("".join(part.zfill(2) for part in re.split("[:-]", value.text)), 16)
            block = _exact("eth_src", mac)
            return tuple(FilterRule(match, True) for match in _sides(asked.direction, "eth_src", "eth_dst", [block]))
        if asked.proto in PROTOCOLS:
            raise self._refused(
                value, f"'{asked.proto}' stands before 'port': write '{asked.proto} and {asked.type} {value.text}'"
            )
        version, block = self._range(asked.type, value)
        places: tuple[tuple[str, str, str], ...] = (("ip6", "ipv6_src", "ipv6_dst"),)
        if version == 4:
            places = (("ip", "ip_src", "ip_dst"), ("arp", "arp_spa", "arp_tpa"), ("rarp", "arp_spa", "arp_tpa"))
        found = [
            FilterRule({"eth_type": _exact("eth_type", ETH_TYPES[proto]), **sides}, True)
            for proto, source, destination in places
            if asked.proto in ("", proto)
            for sides in _sides(asked.direction, source, destination, [block])
        ]
        if not found:
            raise self._refused(value, f"'{asked.proto}' has no such addresses")
        return tuple(found)

    def _range(self, type: str, value: _Term) -> tuple[int, Bits]:
        """The version and the range of addresses that a value says; of a net, as in pcap-filter(7), its last numbers may be left out."""
        if _MAC.fullmatch(value.text) and ":" in value.text:
            raise self._refused(value, "a MAC address stands after 'ether'")
        text, slash, bits = value.text.partition("/")
        if type == "net" and ":" not in text and text.count(".") < 3:
            bits, text = (bits if slash else str(8 * (text.count(".") + 1))), text + ".0" * (3 - text.count("."))
        mask = ""
        if type == "net" and not slash and self._taken("mask"):
            mask = self._take("a netmask").text
        if type == "host" and slash:
            raise self._refused(value, "say 'net' for a range of addresses")
        try:
            network = ipaddress.ip_network(f"{text}/{mask or bits}" if mask or bits else text)
        except ValueError:
            wrong = (
                "an IPv4 or IPv6 address" if type == "host" else "a range of addresses without bits behind its prefix"
            )
            raise self._refused(value, f"wanted {wrong}; names are not looked up") from None
        return network.version, (int(network.network_address), int(network.netmask))


def _is_value(text: str) -> bool:
    return text[0].isdigit() or ":" in text or _MAC.fullmatch(text) is not None


def _exact(field: str, value: int) -> Bits:
    return value, (1 << WIDTHS[field]) - 1


def _wanted(match: Match) -> Rules:
    return (FilterRule(match, True),)


def _over(number: int, version: str) -> dict[str, Bits]:
    return {"eth_type": _exact("eth_type", ETH_TYPES[version]), "nw_proto": _exact("nw_proto", number)}


def _protocol(number: int, versions: tuple[str, ...]) -> Rules:
    """A protocol over versions of IP. ICMP is IPv4's, and ICMPv6 IPv6's, whatever is written."""
    own = {PROTOCOLS["icmp"]: ("ip",), PROTOCOLS["icmp6"]: ("ip6",), PROTOCOLS["igmp"]: ("ip",)}
    return tuple(
        FilterRule(_over(number, version), True)
        for version in (versions if len(versions) == 1 else own.get(number, versions))
    )


def _sides(direction: str, source: str, destination: str, blocks: list[Bits]) -> list[dict[str, Bits]]:
    """The matches of a packet's ends: without a direction either end will do."""
    match direction:
        case "src":
            return [{source: block} for block in blocks]
        case "dst":
            return [{destination: block} for block in blocks]
        case "both":
            return [{source: first, destination: second} for first, second in product(blocks, blocks)]
        case _:
            return [{end: block} for end in (source, destination) for block in blocks]


def _blocks(low: int, high: int) -> list[Bits]:
    """A range of ports as aligned blocks, fewest first."""
    found = []
    while low <= high:
        size = low & -low or 1 << 16
        while low + size - 1 > high:
            size >>= 1
        found.append((low, 0xFFFF & ~(size - 1)))
        low += size
    return found
