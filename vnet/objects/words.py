"""Types of words: names, addresses, MACs, tags, ports. One rule: a type accepts a value in one spelling and returns that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Any, cast

from vnet.grammar.nodes import ListNode, Node, TextNode, clip
from vnet.grammar.value_types import (
    FAILED,
    Column,
    Failed,
    Integer,
    JsonSchema,
    ListOf,
    Scalar,
    ValueRefused,
    ValueType,
    choice,
)
from vnet.objects.devices import OUR_PREFIXES, RESERVED_DEVICES
from vnet.objects.enums import Encryption, Owner, Protocol
from vnet.objects.labels import LABEL, NETWORK, is_label
from vnet.objects.limits import (
    ANY,
    DEVICE_NAME_MAX,
    MAC,
    MAX_ADDRESSES_OF_NETWORK,
    MAX_MTU,
    MAX_NUMBER,
    MAX_PORT,
    MAX_REMOTES,
    MAX_TAG,
    MAX_TITLE,
    MIN_MTU,
    NAME,
    SCTP,
    UPLINK_NAME_MAX,
    VIF_ID,
)
from vnet.objects.values import PortRange, Trunk
from vnet.util.printable import on_one_line

if TYPE_CHECKING:
    from vnet.grammar.source import Source

_USUAL_MAC = re.compile("[0-9a-f][02468ace]:" + ":".join(["[0-9a-f]{2}"] * 5))
_LOOSE_MAC = re.compile(r"[0-9a-fA-F]{2}([:-]?[0-9a-fA-F]{2}){5}|([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}")
_V4 = r"(\d{1,3}\.){3}\d{1,3}"
_V6 = r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*"
NO_MAC = "00:00:00:00:00:00"
NAME_RULE = "letters, digits, '.', '_', '-', at most 63, a letter or digit at both ends"


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueRefused("wrong-name", f"'{clip(text)}' is no name", f"a name has {NAME_RULE}")
    return text


def _uplink_name(text: str) -> str:
    _name(text)
    if len(text) > UPLINK_NAME_MAX:
        hint = f"its bridge is br-{text}, and Linux device names have at most {DEVICE_NAME_MAX}"
        raise ValueRefused("wrong-name", f"'{text}' has {len(text)} characters: an uplink's name has at most 12", hint)
    if text == "int":
        raise ValueRefused("wrong-name", "an uplink cannot be named 'int'", "its bridge would be br-int, which is ours")
    return text


def _device(text: str) -> str:
    if not NAME.fullmatch(text) or len(text) > DEVICE_NAME_MAX:
        raise ValueRefused("wrong-name", f"'{clip(text)}' is no device name", "as in `ip link`: eth0, enp3s0f1, ...")
    if text in RESERVED_DEVICES:
        raise ValueRefused("wrong-name", f"{text} is no NIC: hosts have a device of that name for another purpose")
    return text


def _bridge(text: str) -> str:
    if not NAME.fullmatch(text) or len(text) > DEVICE_NAME_MAX:
        raise ValueRefused(
            "wrong-name", f"'{clip(text)}' is no bridge's name", "as in `ovs-vsctl list-br`: xenbr0, br0, ..."
        )
    if text in RESERVED_DEVICES:
        raise ValueRefused(
            "wrong-name", f"{text} is no bridge to the physical network", "the bridge that has the host's NIC"
        )
    return text


def _collector(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT and port == str(int(port))):
        raise ValueRefused(
            "wrong-value", f"wanted ADDRESS:PORT, found '{clip(text)}'", "as 10.0.0.9:4739, or [fd00::9]:4739"
        )
    bracketed = host.startswith("[") and host.endswith("]")
    address = _ip(host.strip("[]"))
    if bracketed != (address.version == 6):
        raise ValueRefused(
            "wrong-value",
            f"wanted ADDRESS:PORT, found '{clip(text)}'",
            "an IPv6 address, and no other, stands in brackets",
        )
    return f"[{address}]:{port}" if bracketed else f"{address}:{port}"


def _plug_bridge(text: str) -> str:
    _bridge(text)
    if text.startswith(OUR_PREFIXES):
        hint = f"another name: those that begin with {', '.join(OUR_PREFIXES)} are of uplinks"
        raise ValueRefused("wrong-name", f"'{text}' may be the bridge or a port of an uplink", hint)
    return text


def _vif_id(text: str) -> str:
    if not VIF_ID.fullmatch(text):
        raise ValueRefused("wrong-name", f"'{clip(text)}' is no VIF id", "letters, digits and . _ : / -, at most 128")
    return text


def _mac(text: str) -> str:
    if _USUAL_MAC.fullmatch(text) and text != NO_MAC:
        return text
    value = text.lower()
    if not MAC.fullmatch(value):
        hint = "six hexadecimal pairs, as 0a:00:00:00:00:01"
        if _LOOSE_MAC.fullmatch(text):
            from netaddr import EUI, mac_unix_expanded  # noqa: PLC0415 - an agent reads rows, which have no such

            hint = f"write {EUI(text, dialect=mac_unix_expanded)}"
        raise ValueRefused("wrong-mac", f"'{clip(text)}' is no MAC address", hint)
    if int(value[1], 16) & 1:
        hint = "the first byte of a VIF's MAC is even (02, 06, 0a, 0e, ... for one you make up)"
        raise ValueRefused("wrong-mac", f"{value} is a multicast address", hint)
    if value == NO_MAC:
        raise ValueRefused("wrong-mac", f"{value} is no interface's address", "leave 'mac' out and one is allocated")
    return value


def _ip(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        hint = "as 10.1.0.10 or fd00::10"
        if "/" in text:
            hint = f"without a prefix length: {clip(text.split('/', maxsplit=1)[0])}"
        elif re.fullmatch(_V4, text) and any(len(part) > 1 and part[0] == "0" for part in text.split(".")):
            hint = "a leading zero means octal to some programs: write " + ".".join(
                part.lstrip("0") or "0" for part in text.split(".")
            )
        raise ValueRefused("wrong-address", f"'{clip(text)}' is no IPv4 or IPv6 address", hint) from None


_THIS_NETWORK = ip_network("0.0.0.0/8")  # RFC 1122 §3.2.1.3 (a)
_NO_DESTINATION = (_THIS_NETWORK, ip_network("::/128"))
_NO_SOURCE = tuple(map(ip_network, ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")))
# Loopback (RFC 1122 §3.2.1.3 (g)), IPv4-compatible addresses with IPv6's own loopback and unspecified ones, IPv4-mapped
# addresses (RFC 4291 §2.5.5): a network carries no packet from or to them.
_NEVER_SENT = tuple(map(ip_network, ("127.0.0.0/8", "::/96", "::ffff:0:0/96")))
_NO_INTERFACE = (_THIS_NETWORK, *_NO_SOURCE, *_NEVER_SENT)
# First bytes of addresses that are looked at closely: those of _NO_INTERFACE.
_SPECIAL = frozenset({0, 127, *range(224, 240), 255})


def ip_version(address: str) -> int:
    """4 or 6: the version of an address, or a range, that was read."""
    return 6 if ":" in address else 4


def address_number(address: str) -> int:
    """The number that an address is, which was read."""
    return int.from_bytes(inet_pton(AF_INET6 if ":" in address else AF_INET, address), "big")


def _usual(text: str) -> bool:
    """Whether a text is certainly an interface's address in its one spelling: a cheap look, for rows come by 100,000."""
    family = AF_INET6 if ":" in text else AF_INET
    try:
        packed = inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return packed[0] not in _SPECIAL and inet_ntop(family, packed) == text


def _address(text: str) -> str:
    if _usual(text):
        return text
    address = _ip(text)
    if "%" in text:
        raise ValueRefused(
            "wrong-address",
            f"'{clip(text)}' has a scope, which is a host's own",
            f"write {clip(text.partition('%')[0])}",
        )
    if any(address in span for span in _NO_INTERFACE):
        raise ValueRefused("wrong-address", f"{clip(text)} is no address that an interface can have to itself")
    return str(address)


_LINK_LOCAL = ip_network("fe80::/10")


def _vtep(text: str) -> str:
    address = _address(text)
    if ip_address(address) in _LINK_LOCAL:
        raise ValueRefused("wrong-address", f"{address} is link-local: tunnels need a routable address")
    return address


def _range(text: str) -> IPv4Network | IPv6Network:
    try:
        if "%" in text:
            raise ValueError("a scope is a host's own")
        net = ip_network(text, strict=False)
    except ValueError:
        raise ValueRefused("wrong-address", f"'{clip(text)}' is no subnet", "as 10.1.0.0/24 or fd00:1::/64") from None
    if "/" not in text:
        raise ValueRefused(
            "wrong-address", f"'{clip(text)}' has no prefix length", f"as {text}/{net.max_prefixlen - 8}"
        )
    if "/" in text and not text.rsplit("/", maxsplit=1)[1].isdigit():
        raise ValueRefused("wrong-address", f"'{clip(text)}' has a netmask", f"write {net}")
    if str(ip_address(text.split("/", maxsplit=1)[0])) != str(net.network_address):
        raise ValueRefused("wrong-address", f"{clip(text)} has bits set beyond its prefix", f"the subnet is {net}")
    return net


@lru_cache(maxsize=MAX_ADDRESSES_OF_NETWORK)  # a set of a thousand is read whole where one of them changes
def _range_text(text: str) -> str:
    return str(_range(text))


def _cidr(text: str) -> str:
    net = _range(text)
    if not_theirs := next((span for span in _NO_INTERFACE if net.version == span.version and net.overlaps(span)), None):
        hint = f"no interface has an address of {not_theirs}"
        raise ValueRefused("wrong-address", f"{net} is no range that interfaces have addresses from", hint)
    return str(net)


def is_never(cidr: str, *, source: bool) -> bool:
    """Whether a network carries no packet from (source) or to an address of the range."""
    net = ip_network(cidr)
    spans = (*_NEVER_SENT, *(_NO_SOURCE if source else _NO_DESTINATION))
    return any(net.version == span.version and net.subnet_of(span) for span in spans)  # type: ignore[arg-type]  # of one version


def is_range(text: str) -> bool:
    """Whether a text is an address or a range of addresses."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _group_name(text: str) -> str:
    _name(text)
    if text == ANY:
        raise ValueRefused(
            "wrong-name", "a security group cannot be named 'any'", "in rules it is everybody: another name"
        )
    if _is_address(text):
        raise ValueRefused("wrong-name", f"a security group cannot be named '{text}', like an address", "another name")
    return text


def _remote(text: str) -> str:
    """`any`, a CIDR, a label, a network, or what then is a group's name."""
    if text.startswith(LABEL):
        if is_label(text.removeprefix(LABEL)):
            return text
        raise ValueRefused("wrong-value", f"'{clip(text)}' names no label", f"a label is {LABEL}KEY=VALUE")
    if text.startswith(NETWORK):
        return NETWORK + _name(text.removeprefix(NETWORK))
    if _is_address(text) and "%" not in text:
        address = ip_address(text)
        hint = f"for this address alone write {address}/{address.max_prefixlen}"
        raise ValueRefused("wrong-address", f"'{clip(text)}' has no prefix length", hint)
    if "/" in text or ":" in text:
        return str(_range(text))
    if text == "*":
        raise ValueRefused("wrong-value", "wanted a security group, a CIDR or 'any', found '*'", "did you mean 'any'?")
    return text if text == ANY else _name(text)


def _pattern(regex: str) -> JsonSchema:
    return {"type": "string", "pattern": f"^({regex})$"}


NAME_KIND = Scalar("a name", _pattern(NAME.pattern), _name)
HOST_REF = Scalar("the name of a host", _pattern(NAME.pattern), _name, refers="host")
NETWORK_REF = Scalar("the name of a network", _pattern(NAME.pattern), _name, refers="network")
VM_REF = Scalar("the name of a VM", _pattern(NAME.pattern), _name, refers="vm")
UPLINK_NAME = Scalar(
    "the name of an uplink",
    {"type": "string", "pattern": f"^(?!int$)({NAME.pattern})$", "maxLength": UPLINK_NAME_MAX},
    _uplink_name,
)
DEVICE = Scalar("a NIC", {**_pattern(NAME.pattern), "maxLength": DEVICE_NAME_MAX}, _device)
BRIDGE_NAME = Scalar("a bridge", {**_pattern(NAME.pattern), "maxLength": DEVICE_NAME_MAX}, _bridge)
COLLECTOR = Scalar("ADDRESS:PORT", {"type": "string", "pattern": r"^.+:[0-9]{1,5}$"}, _collector)
PLUG_BRIDGE_NAME = Scalar(
    "a bridge for VIFs",
    {
        "type": "string",
        "pattern": f"^(?!{'|'.join(OUR_PREFIXES)})({NAME.pattern})$",
        "maxLength": DEVICE_NAME_MAX,
    },
    _plug_bridge,
)
VIF_ID_KIND = Scalar("a VIF id", _pattern(VIF_ID.pattern), _vif_id)
VIF_REF = replace(VIF_ID_KIND, refers="vif")
QOS_REF = Scalar("the name of a QoS class", _pattern(NAME.pattern), _name, refers="qos-class")
MAC_KIND = Scalar("a MAC address", _pattern("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}"), _mac)
ADDRESS = Scalar("an IPv4 or IPv6 address", _pattern(f"{_V4}|{_V6}"), _address)
VTEP = Scalar("an IPv4 or IPv6 address", _pattern(f"{_V4}|{_V6}"), _vtep)
CIDR = Scalar("a subnet as ADDRESS/LENGTH", _pattern(f"({_V4}|{_V6})/\\d{{1,3}}"), _cidr)
ANY_RANGE = Scalar("a range as ADDRESS/LENGTH", _pattern(f"({_V4}|{_V6})/\\d{{1,3}}"), _range_text)
GROUP_NAME = Scalar(
    "the name of a security group",
    {"type": "string", "pattern": f"^(?!any$)(?!{_V4}$)({NAME.pattern})$"},
    _group_name,
)
GROUP_REF = replace(GROUP_NAME, refers="security-group")
SET_REF = replace(GROUP_NAME, refers="address-set")
_REMOTE = Scalar(
    "'any', a CIDR, the name of a security group, network:NAME or label:KEY=VALUE",
    {
        "oneOf": [
            _pattern(f"({_V4}|{_V6})/\\d{{1,3}}"),
            {"type": "string", "pattern": f"^(?!{_V4}$)({NAME.pattern})$"},
            _pattern(f"{NETWORK}({NAME.pattern})|{LABEL}({NAME.pattern})=({NAME.pattern})"),
        ]
    },
    _remote,
)
MTU = Integer(f"an MTU in bytes, {MIN_MTU}..{MAX_MTU}", MIN_MTU, MAX_MTU, bounded=False)
OWNER = choice("an owner", Owner)
ENCRYPTION = choice(
    "'required'",
    Encryption,
    dict.fromkeys(("preferred", "optional"), "'required', or leave it out: nothing is encrypted only sometimes"),
)
NUMBER = Integer(f"a number, 1..{MAX_NUMBER}", 1, MAX_NUMBER)
COUNT = Integer("a number, 0 or more", 0, 2**63 - 1, bounded=False)
ANY_NUMBER = Integer("a number", -(2**63), 2**63 - 1, bounded=False)
LINE = Scalar("a text", {"type": "string"}, str)


class _Texts(Scalar[Mapping[str, str]]):
    """Texts by object, of rows alone."""

    column = Column("string", "string", many=True, encode=dict, decode=dict)

    def check(self, value: Mapping[str, str]) -> None:
        return


TEXTS = _Texts("texts by object", {"type": "object"}, lambda text: {text: ""}, "dict[str, str]")
TAG_NUMBER = Integer(f"a VLAN tag, 1..{MAX_TAG}", 1, MAX_TAG)


def text_kind(noun: str, most: int) -> Scalar[str]:
    """Free text on one line, of at most so many characters."""

    def parse(text: str) -> str:
        if not text.strip() or len(text) > most or not text.isprintable():
            raise ValueRefused("wrong-text", f"wanted {noun}: one line of at most {most} characters")
        return text

    return Scalar(noun, {"type": "string", "minLength": 1, "maxLength": most}, parse)


TITLE_KIND = text_kind("a title", MAX_TITLE)


def title_of(label: str) -> str | None:
    """Another system's label as a title: one line that moves no cursor; None for one without a character that shows."""
    return on_one_line(label)[:MAX_TITLE].strip() or None


class TagOrUntagged(ValueType[int]):
    """A VLAN network's tag; 0 is `untagged`, so that the number 0 is never written."""

    expected = f"a VLAN tag, 1..{MAX_TAG}, or 'untagged'"

    column = Column({"type": "integer", "minInteger": 0, "maxInteger": MAX_TAG})
    python = 'int | Literal["untagged"]'

    def check(self, value: int) -> None:
        if not isinstance(value, int) or not 0 <= value <= MAX_TAG:
            raise ValueRefused("out-of-range", f"{clip(str(value))} is outside 0..{MAX_TAG}")

    def plain(self, value: int) -> Any:
        return value or "untagged"

    def read(self, node: Node, source: Source) -> int | Failed:
        if isinstance(node, TextNode) and node.text == "untagged":
            return 0
        if isinstance(node, TextNode) and node.plain and node.text in ("0", "-1", "none"):
            source.add("out-of-range", f"wanted {self.expected}, found {node.text}", node, "write 'untagged'")
            return FAILED
        return Integer(self.expected, 1, MAX_TAG).read(node, source)

    def schema(self) -> JsonSchema:
        return {"oneOf": [{"type": "integer", "minimum": 1, "maximum": MAX_TAG}, {"const": "untagged"}]}


_TRUNK_TAGS = ListOf(TAG_NUMBER, "a list of VLAN tags", empty="list tags, write 'all', or leave 'trunk' out")


def _trunk_of(words: frozenset[str]) -> Trunk | None:
    if not words:
        return None
    return Trunk() if "all" in words else Trunk(tuple(sorted(map(int, words))))


class TrunkTags(ValueType[Trunk]):
    """The tags that a trunk VIF carries. None is stored as an empty set, all tags as {"all"}."""

    expected = f"'all', or a list of VLAN tags, 1..{MAX_TAG}"

    column = Column(
        "string",
        many=True,
        encode=lambda trunk: frozenset() if trunk is None else frozenset(map(str, trunk.tags)) or frozenset({"all"}),
        decode=_trunk_of,
    )
    python = 'list[int] | Literal["all"]'

    def read(self, node: Node, source: Source) -> Trunk | Failed:
        if isinstance(node, TextNode) and node.text == "all":
            return Trunk()
        if not isinstance(node, ListNode):
            return self.wrong(node, source)
        tags = _TRUNK_TAGS.read(node, source)
        return FAILED if isinstance(tags, Failed) else Trunk(tuple(sorted(tags)))

    def check(self, value: Trunk) -> None:
        if not isinstance(value, Trunk):
            raise ValueRefused("wrong-type", f"wanted {self.expected}, found {clip(str(value))}")

    def plain(self, value: Trunk) -> Any:
        return list(value.tags) or "all"

    def schema(self) -> JsonSchema:
        return {"oneOf": [{"const": "all"}, _TRUNK_TAGS.schema()]}


_ANYBODY = ListOf(
    _REMOTE, "a list of CIDRs and security groups", empty="leave 'remote' out for any", ordered=True, most=MAX_REMOTES
)


class Remotes(ValueType[tuple[str, ...]]):
    """The other sides of a rule, in order; none is anybody. One is written without a list."""

    expected = (
        "'any', a CIDR, the name of a security group, network:NAME, label:KEY=VALUE, or a list of these but 'any'"
    )
    python = "str | list[str]"

    def check(self, value: tuple[str, ...]) -> None:
        for remote in value:
            _REMOTE.check(remote)
        if ANY in value or tuple(sorted(set(value))) != value:
            raise ValueRefused("wrong-value", "other sides stand once each, in order, and anybody is none")

    def plain(self, value: tuple[str, ...]) -> Any:
        return list(value) if len(value) > 1 else value[0] if value else ANY

    def read(self, node: Node, source: Source) -> tuple[str, ...] | Failed:
        if not isinstance(node, ListNode):
            one = _REMOTE.read(node, source)
            return one if isinstance(one, Failed) else () if one == ANY else (one,)
        found = _ANYBODY.read(node, source)
        if isinstance(found, Failed) or ANY not in found:
            return cast("tuple[str, ...] | Failed", found)
        at = next(item for item in node.items if isinstance(item, TextNode) and item.text == ANY)
        source.add("wrong-value", "'any' beside others", at, "leave the others out, or 'any'")
        return FAILED

    def schema(self) -> JsonSchema:
        return {"oneOf": [_REMOTE.schema(), _ANYBODY.schema()]}


_NAMED = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}
# Protocols that are numbers here, by their names in IANA's list of protocol numbers.
_NUMBERED = {"igmp": 2, "gre": 47, "esp": 50, "ah": 51, "ospf": 89, "vrrp": 112, "sctp": SCTP}
_NAMES = {number: name for name, number in _NUMBERED.items()}
_PROTOCOLS = [*(protocol.value for protocol in Protocol), *_NUMBERED]


class RuleProtocol(ValueType[Protocol | int]):
    """An IP protocol, by its name where it has one here, else by its number."""

    expected = f"a protocol: {', '.join(_PROTOCOLS)}, or its number, 0..255"
    python = f"Literal{_PROTOCOLS} | int".replace("'", '"')

    def check(self, value: Protocol | int) -> None:
        if isinstance(value, Protocol):
            return
        if not isinstance(value, int) or not 0 <= value <= 255:
            raise ValueRefused("out-of-range", f"{clip(str(value))} is outside 0..255")
        if value in _NAMED:
            raise ValueRefused("wrong-value", f"protocol {value} is written by its name")

    def plain(self, value: Protocol | int) -> Any:
        return value.value if isinstance(value, Protocol) else _NAMES.get(value, value)

    def read(self, node: Node, source: Source) -> Protocol | int | Failed:
        words: dict[str, Protocol | int] = {protocol.value: protocol for protocol in Protocol} | _NUMBERED
        if isinstance(node, TextNode) and node.text in words:
            return words[node.text]
        word = node.text.casefold() if isinstance(node, TextNode) else ""
        if word[:1].isdigit():
            number = Integer(self.expected, 0, 255).read(node, source)
            if not isinstance(number, Failed) and number in _NAMED:
                hint = f"did you mean '{_NAMED[number]}'?"
                source.add("wrong-value", f"protocol {number} is written by its name", node, hint)
                return FAILED
            return number
        hint = ""
        if word in (ANY, "all", "*", "ip", "ipv4", "ipv6"):
            hint = "leave 'protocol' out for any"
        elif word.startswith(("icmp", "ipv6-icmp")):
            hint = "did you mean 'icmp'? it is ICMPv6 where packets are IPv6"
        elif word and (near := source.nearest(word, words)):
            hint = f"did you mean '{near}'?"
        return self.wrong(node, source, hint)

    def schema(self) -> JsonSchema:
        return {"oneOf": [{"enum": _PROTOCOLS}, {"type": "integer", "minimum": 0, "maximum": 255}]}


_SPAN = re.compile(r"([0-9]{1,9})(\s*-\s*|:|\.\.|,|\s+)([0-9]{1,9})")


class PortOrRange(ValueType[PortRange]):
    """One port, or FIRST-LAST."""

    expected = f"a port, 0..{MAX_PORT}, or a range as 443-445"

    def read(self, node: Node, source: Source) -> PortRange | Failed:
        found = _SPAN.fullmatch(node.text) if isinstance(node, TextNode) else None
        if found is None:
            port = Integer(self.expected, 0, MAX_PORT).read(node, source)
            return port if isinstance(port, Failed) else PortRange(port, port)
        first, last = int(found[1]), int(found[3])
        if found[2] != "-":
            return self.wrong(
                node, source, "two items: put a ',' between them" if found[2] == "," else f"write {first}-{last}"
            )
        if max(first, last) > MAX_PORT:
            source.add("out-of-range", f"{max(first, last)} is out of range: wanted {self.expected}", node)
            return FAILED
        if first > last:
            message = f"the range {first}-{last} ends before it begins"
            source.add("wrong-value", message, node, f"did you mean {last}-{first}?")
            return FAILED
        return PortRange(first, last)

    def schema(self) -> JsonSchema:
        number = {"type": "integer", "minimum": 0, "maximum": MAX_PORT}
        return {"oneOf": [number, _pattern("[0-9]{1,5}-[0-9]{1,5}")]}


_PORTS = ListOf(PortOrRange(), "a list of ports and ranges", empty="leave 'ports' out for all", unique=False)


class PortRanges(ValueType[tuple[PortRange, ...]]):
    """Ports as the model has them: in order, and as few ranges as can be."""

    expected = "a list of ports, 0..65535, and ranges as 443-445"
    python = "list[int | str]"

    def check(self, value: tuple[PortRange, ...]) -> None:
        if PortRange.merged(value) != value:
            raise ValueRefused("wrong-value", "ranges stand in order, and do not touch")

    def plain(self, value: tuple[PortRange, ...]) -> Any:
        return [span.first if span.first == span.last else str(span) for span in value]

    def read(self, node: Node, source: Source) -> tuple[PortRange, ...] | Failed:
        found = _PORTS.read(node, source)
        return found if isinstance(found, Failed) else PortRange.merged(found)

    def schema(self) -> JsonSchema:
        return _PORTS.schema()
