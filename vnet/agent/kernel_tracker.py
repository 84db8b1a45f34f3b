"""The connections of one zone of the kernel's tracker: listed, taken in, taken out. By netlink (linux/netfilter/nfnetlink_conntrack.h), since
nothing of Open vSwitch takes connections in.

One rule: what is not understood of a connection leaves it out; the kernel says of each connection that it takes in whether it did.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from vnet.db.handovers import ANSWERS, ICMP, ICMPV6, LIVE, MAX_TIMEOUT_S, PORTED, TCP, TrackedConnection
from vnet.objects.limits import SCTP

NETLINK_NETFILTER = 12
NEW, GET, DELETE = 0x100, 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8, and the message
REQUEST, ACK, DUMP, ONLY_NEW = 0x1, 0x4, 0x300, 0x600  # flags: NLM_F_CREATE | NLM_F_EXCL
ERROR, DONE = 2, 3
HEADER, FAMILY, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBH"), struct.Struct("=HH")
NESTED = 0x8000
# enum ctattr_type, and those of what is nested in them
ORIG, REPLY, STATUS, PROTOINFO, TIMEOUT, ZONE = 1, 2, 3, 4, 7, 18
IP, PROTO = 1, 2
ADDRESSES = {4: (1, 2), 16: (3, 4)}
NUMBER, SOURCE_PORT, TARGET_PORT = 1, 2, 3
MESSAGE = {ICMP: (4, 5, 6), ICMPV6: (7, 8, 9)}  # identifier, type, code
INFO_TCP, INFO_SCTP = 1, 3
STATE, TCP_FLAGS, SCTP_TAGS = 1, (4, 5), (2, 3)
SEEN_REPLY, ASSURED, CONFIRMED, DYING = 2, 4, 8, 512  # bits of the status
LIBERAL = 0x08  # of TCP's flags: sequence numbers are not looked at, since they are not listed
ANSWER_BYTES = 1 << 16
AT_ONCE = 64  # messages of one send
ELSEWHERE = "its agent runs elsewhere than its datapath"
DATAPATH_DEVICE = "ovs-system"  # the device of the kernel's datapath, in the network namespace whose tracker it uses


def reason_against(datapath_type: str, *, elsewhere: bool = False) -> str:
    """Why connections of a datapath of that type cannot be listed and taken in here; "" if they can. elsewhere: it is on another machine."""
    if datapath_type not in ("", "system"):
        return "its userspace datapath takes no connections in"
    if elsewhere or all(name != DATAPATH_DEVICE for _, name in socket.if_nameindex()):
        return ELSEWHERE
    try:
        with _kernel() as kernel:
            errors = _ask(kernel, [_message(DELETE, 0, socket.AF_INET, _tuple(ORIG, _NOBODY) + _zone(0))])
    except OSError as error:
        return f"the kernel does not let its agent: {error.strerror}"
    return "" if errors in ([], [errno.ENOENT]) else f"its kernel cannot: {os.strerror(errors[0])}"


def listed(zone: int, most: int) -> list[TrackedConnection]:
    """The connections of a zone that go on, at most so many. Raises OSError."""
    found: list[TrackedConnection] = []
    with _kernel() as kernel:
        kernel.send(_message(GET, DUMP, socket.AF_UNSPEC, _zone(zone)))  # Linux before 6.8 lists all zones
        while True:
            for number, body in _messages(kernel.recv(ANSWER_BYTES)):
                if number == DONE:
                    return found
                if number == ERROR:
                    raise _error(body)
                if number == NEW and len(found) < most and (connection := parsed(body, zone)) is not None:
                    found.append(connection)


def take_in(zone: int, connections: Sequence[TrackedConnection]) -> int:
    """Enters connections into a zone; returns how many the kernel refused. One that is there already stays as it is. Raises OSError if the
    kernel takes none at all."""
    messages = [entry(connection, zone) for connection in connections]
    with _kernel() as kernel:
        errors = [error for error in _ask(kernel, messages) if error != errno.EEXIST]
    if errors and len(errors) == len(connections):
        raise OSError(errors[0], os.strerror(errors[0]))
    return len(errors)


def take_out(zone: int, connections: Iterable[TrackedConnection]) -> None:
    """Takes connections out of a zone, and no others. Raises OSError."""
    with _kernel() as kernel:
        _ask(kernel, [_message(DELETE, 0, _family(it), _tuple(ORIG, it) + _zone(zone)) for it in connections])


# Messages


def entry(it: TrackedConnection, zone: int) -> bytes:
    """The message that enters a connection, answered by the error if there is one."""
    status = CONFIRMED | SEEN_REPLY * it.replied | ASSURED * it.assured
    body = _tuple(ORIG, it) + _tuple(REPLY, _answer(it))
    body += _attribute(STATUS, struct.pack("!I", status)) + _attribute(TIMEOUT, struct.pack("!I", it.timeout_s))
    body += _zone(zone) + _info(it)
    return _message(NEW, ONLY_NEW, _family(it), body)


def parsed(body: bytes, zone: int) -> TrackedConnection | None:
    """The connection of a message that lists one; None if it is of another zone, or none that goes on as it is elsewhere."""
    found = _attributes(body[FAMILY.size :])
    try:
        if int.from_bytes(found.get(ZONE, b"\0\0"), "big") != zone:
            return None
        status = int.from_bytes(found[STATUS], "big")
        begun, answer = _ends(found[ORIG]), _ends(found[REPLY])
        state, tags = _state(begun[0], found.get(PROTOINFO, b""))
        timeout_s = min(int.from_bytes(found[TIMEOUT], "big"), MAX_TIMEOUT_S)
        it = TrackedConnection(*begun, timeout_s, state, bool(status & SEEN_REPLY), bool(status & ASSURED), tags)
    except (KeyError, IndexError, ValueError):
        return None
    expected = _answer(it)  # another one is of a connection whose addresses are translated
    is_plain = answer == (expected.protocol, expected.source, expected.target, expected.ports)
    return it if is_plain and not status & DYING else None


class _Ends(TrackedConnection):
    """The ends of packets of a connection, of those that only answer too."""

    __slots__ = ()

    def __post_init__(self) -> None:
        pass


_NOBODY = _Ends(TCP, bytes(4), bytes(4), (0, 0), 1)


def _answer(it: TrackedConnection) -> TrackedConnection:
    ports = it.ports[::-1] if it.protocol in PORTED else (it.ports[0], ANSWERS[it.protocol][it.ports[1]])
    return _Ends(it.protocol, it.target, it.source, ports, it.timeout_s)


def _family(it: TrackedConnection) -> int:
    return socket.AF_INET if len(it.source) == 4 else socket.AF_INET6


def _tuple(number: int, it: TrackedConnection) -> bytes:
    source, target = ADDRESSES[len(it.source)]
    addresses = _attribute(source, it.source) + _attribute(target, it.target)
    proto = _attribute(NUMBER, bytes([it.protocol]))
    if it.protocol in PORTED:
        first, second = SOURCE_PORT, TARGET_PORT
        proto += _attribute(first, it.ports[0].to_bytes(2)) + _attribute(second, it.ports[1].to_bytes(2))
    else:
        identifier, message, code = MESSAGE[it.protocol]
        proto += _attribute(identifier, it.ports[0].to_bytes(2)) + _attribute(message, bytes([it.ports[1]]))
        proto += _attribute(code, b"\0")
    return _attribute(number | NESTED, _attribute(IP | NESTED, addresses) + _attribute(PROTO | NESTED, proto))


def _info(it: TrackedConnection) -> bytes:
    state = _attribute(STATE, bytes([it.state]))
    if it.protocol == TCP:
        flags = b"".join(_attribute(number, bytes([LIBERAL, LIBERAL])) for number in TCP_FLAGS)
        return _attribute(PROTOINFO | NESTED, _attribute(INFO_TCP | NESTED, state + flags))
    if it.protocol == SCTP:
        tags = b"".join(_attribute(number, tag.to_bytes(4)) for number, tag in zip(SCTP_TAGS, it.tags, strict=True))
        return _attribute(PROTOINFO | NESTED, _attribute(INFO_SCTP | NESTED, state + tags))
    return b""


def _ends(nested: bytes) -> tuple[int, bytes, bytes, tuple[int, int]]:
    found = _attributes(nested)
    addresses, proto = _attributes(found[IP]), _attributes(found[PROTO])
    protocol = proto[NUMBER][0]
    source, target = ADDRESSES[4] if ADDRESSES[4][0] in addresses else ADDRESSES[16]
    if protocol in MESSAGE:
        identifier, message, _ = MESSAGE[protocol]
        ports = int.from_bytes(proto[identifier], "big"), proto[message][0]
    else:
        ports = int.from_bytes(proto[SOURCE_PORT], "big"), int.from_bytes(proto[TARGET_PORT], "big")
    return protocol, addresses[source], addresses[target], ports


def _state(protocol: int, nested: bytes) -> tuple[int, tuple[int, int]]:
    if protocol not in LIVE:
        return 0, (0, 0)
    found = _attributes(_attributes(nested)[INFO_TCP if protocol == TCP else INFO_SCTP])
    first, second = SCTP_TAGS
    tags = (0, 0) if protocol == TCP else (int.from_bytes(found[first], "big"), int.from_bytes(found[second], "big"))
    return found[STATE][0], tags


def _zone(zone: int) -> bytes:
    return _attribute(ZONE, zone.to_bytes(2))


def _attribute(number: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= ATTRIBUTE.size:
        size, number = ATTRIBUTE.unpack_from(data)
        found[number & ~NESTED] = data[ATTRIBUTE.size : size]
        data = data[max(size + 3 & ~3, ATTRIBUTE.size) :]
    return found


def _message(number: int, flags: int, family: int, body: bytes) -> bytes:
    data = FAMILY.pack(family, 0, 0) + body
    return HEADER.pack(HEADER.size + len(data), number, REQUEST | flags, 0, 0) + data


# The kernel


@contextmanager
def _kernel() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as kernel:
        kernel.bind((0, 0))
        kernel.settimeout(5.0)
        yield kernel


def _ask(kernel: socket.socket, messages: Sequence[bytes]) -> list[int]:
    """Sends messages; the errors with which the kernel answers any of them. Raises OSError if it lets nobody ask."""
    errors: list[int] = []
    for at in range(0, len(messages), AT_ONCE):
        batch = messages[at : at + AT_ONCE]
        kernel.send(b"".join([*batch[:-1], _acknowledged(batch[-1])]))
        answered = False
        while not answered:
            for number, body in _messages(kernel.recv(ANSWER_BYTES)):
                if number != ERROR:
                    continue
                error = -struct.unpack_from("=i", body)[0]
                if error == errno.EPERM:
                    raise _error(body)
                if error:
                    errors.append(error)
                _, _, flags, _, _ = HEADER.unpack_from(body, 4)
                answered = answered or bool(flags & ACK)
    return errors


def _acknowledged(message: bytes) -> bytes:
    size, number, flags, sequence, port = HEADER.unpack_from(message)
    return HEADER.pack(size, number, flags | ACK, sequence, port) + message[HEADER.size :]


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= HEADER.size:
        size, number, *_ = HEADER.unpack_from(data)
        yield number, data[HEADER.size : size]
        data = data[max(size + 3 & ~3, HEADER.size) :]


def _error(body: bytes) -> OSError:
    number = -struct.unpack_from("=i", body)[0]
    return OSError(number, os.strerror(number))
