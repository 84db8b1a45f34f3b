"""A packet as a person writes it for scapy, read and never run: `Ether()/IP(dst="10.0.0.1")/TCP(dport=443)`.

One rule: the text is parsed to a tree and only what is listed here is followed in it: names of layers, `/`, keyword arguments,
and plain values. Nothing of it is evaluated.
"""

from __future__ import annotations

import ast
from importlib import import_module
from typing import Any

from vnet.sim.errors import PacketError

LAYERS = {
    "Ether": "l2", "Dot1Q": "l2", "Dot1AD": "l2", "ARP": "l2", "LLC": "l2", "SNAP": "l2", "IP": "inet", "TCP": "inet",
    "UDP": "inet", "ICMP": "inet", "IPv6": "inet6", "ICMPv6EchoRequest": "inet6", "ICMPv6EchoReply": "inet6",
    "ICMPv6ND_NS": "inet6", "ICMPv6ND_NA": "inet6", "ICMPv6ND_RS": "inet6", "ICMPv6ND_RA": "inet6",
    "ICMPv6NDOptSrcLLAddr": "inet6", "ICMPv6NDOptDstLLAddr": "inet6", "IPv6ExtHdrHopByHop": "inet6",
    "IPv6ExtHdrFragment": "inet6", "BOOTP": "dhcp", "DHCP": "dhcp", "DNS": "dns", "DNSQR": "dns", "VXLAN": "vxlan",
    "GRE": "l2", "SCTP": "sctp",
}  # fmt: skip
TEXT_MAX = 10_000
DEPTH_MAX = 60
NUMBER_MAX = 1 << 128
PAYLOAD_MAX = 65535


def parse_packet(text: str) -> Any:
    """The scapy packet that a text describes. Raises PacketError with the column of the fault."""
    if len(text) > TEXT_MAX:
        raise PacketError(f"{len(text)} characters are too many for a packet: at most {TEXT_MAX}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PacketError(f"{text!r} is no packet: {error}; write Ether()/IP(dst='10.0.0.1')/TCP(dport=443)") from None
    try:
        packet = _packet(tree.body, 0)
    except PacketError:
        raise
    except Exception as error:  # scapy refuses field values with whatever its field's code happens to raise
        raise PacketError(f"scapy does not take {text!r}: {error}") from error
    if isinstance(packet, bytes):
        raise PacketError("bytes are no packet: begin with Ether()")
    return packet


def frame_of(packet: Any) -> bytes:
    """A scapy packet's bytes. Raises PacketError for field values that do not fit."""
    try:
        return bytes(packet)
    except Exception as error:  # the same: only now does scapy look at most values
        raise PacketError(f"scapy cannot build the packet: {error}") from error


def _refuse(node: ast.AST, message: str) -> PacketError:
    return PacketError(f"column {getattr(node, 'col_offset', 0) + 1}: {message}")


def _packet(node: ast.expr, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise _refuse(node, f"more than {DEPTH_MAX} layers")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        left, right = _packet(node.left, depth + 1), _packet(node.right, depth + 1)
        return left / right
    if isinstance(node, ast.Call):
        return _layer(node, depth)
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return node.value.encode() if isinstance(node.value, str) else node.value
    raise _refuse(node, "layers joined by '/' are what a packet is: Ether()/IP()/TCP()")


def _layer(node: ast.Call, depth: int) -> Any:
    if not isinstance(node.func, ast.Name):
        raise _refuse(node, "a layer is a plain name, like IP(...)")
    name = node.func.id
    values = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise _refuse(keyword.value, "write each field as name=value")
        values[keyword.arg] = _value(keyword.value, depth + 1)
    if name == "Raw":
        from scapy.packet import Raw  # noqa: PLC0415

        given = [_value(arg, depth + 1) for arg in node.args] or [values.get("load", b"")]
        return Raw(load=given[0])
    if node.args:
        raise _refuse(node.args[0], f"write each field of {name} as name=value")
    if name not in LAYERS:
        raise _refuse(node, f"unknown layer {name!r}; there are: {', '.join(sorted([*LAYERS, 'Raw']))}")
    layer = getattr(import_module(f"scapy.layers.{LAYERS[name]}"), name)
    fields = {field.name for field in layer.fields_desc}
    for field in values:
        if field not in fields:
            raise _refuse(node, f"{name} has no field {field!r}; it has {', '.join(sorted(fields))}")
    return layer(**values)


def _value(node: ast.expr, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise _refuse(node, "nested too deeply")
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, int) and abs(value) >= NUMBER_MAX:
            raise _refuse(node, "a number of more than 128 bits")
        if isinstance(value, str | bytes | int | float | None):
            return value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, depth + 1)
        if isinstance(inner, int | float):
            return -inner
    if isinstance(node, ast.List | ast.Tuple):
        items = [_value(item, depth + 1) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _repeated(node, depth)
    if isinstance(node, ast.Call):
        return _layer(node, depth)
    raise _refuse(node, "a field's value is a number, a text, bytes, or a list of those")


def _repeated(node: ast.BinOp, depth: int) -> Any:
    """b'x' * 100: how payloads of a length are written."""
    data, count = _value(node.left, depth + 1), _value(node.right, depth + 1)
    if not isinstance(data, str | bytes) or not isinstance(count, int):
        raise _refuse(node, "only text or bytes can be repeated, as b'x' * 100")
    if count < 0 or len(data) * count > PAYLOAD_MAX:
        raise _refuse(node, f"a payload of more than {PAYLOAD_MAX} bytes")
    return data * count
