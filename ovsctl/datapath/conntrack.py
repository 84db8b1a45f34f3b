"""The connection tracker: zones, states, marks and NAT.

It is reduced: a connection is new until a packet comes back, or a TCP segment that is no SYN, and lasts until it is flushed. TCP
flags are checked, sequence numbers and checksums are not; connections do not time out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ovsctl.datapath import flow_key as at
from ovsctl.datapath.commit_headers import write_headers
from ovsctl.datapath.errors import UnsupportedFlowError
from ovsctl.datapath.flow_extract import ICMP, ICMPV6, IPV4, IPV6, SCTP, TCP, UDP, extract, ipv6_payload
from ovsctl.datapath.reassembly import InvalidFragment, Reassembly
from ovsctl.openflow import Ct, Nat, SetField

NEW, ESTABLISHED, RELATED, REPLY, INVALID, TRACKED, SNAT, DNAT = (1 << n for n in range(8))
FIN, SYN, RST, PSH, ACK, URG = (1 << n for n in range(6))
ECHO = {ICMP: (8, 0), ICMPV6: (128, 129)}
# Messages about another packet, which they quote (RFC 792, RFC 4443).
ERRORS = {ICMP: (3, 4, 5, 11, 12), ICMPV6: (1, 2, 3, 4)}
FIRST_EPHEMERAL = 1024


class Tuple5(NamedTuple):
    """A connection's addresses, protocol and ports. A ping has its identifier as both ports, and its ICMP type."""

    ipv6: bool
    proto: int
    src: int
    dst: int
    sport: int
    dport: int
    icmp_type: int = 0

    @property
    def back(self) -> Tuple5:
        """The tuple of packets in the other direction."""
        icmp_type = 0
        if self.proto in ECHO:
            request, reply = ECHO[self.proto]
            icmp_type = reply if self.icmp_type == request else request
        return Tuple5(self.ipv6, self.proto, self.dst, self.src, self.dport, self.sport, icmp_type)


@dataclass(slots=True, eq=False)
class ConntrackEntry:
    """A committed connection: the tuple of its first packet, and that of replies, which differs from its inverse with NAT."""

    original: Tuple5
    answer: Tuple5
    nat: Nat | None = None
    replied: bool = False
    mark: int = 0
    label: int = 0


class Tracker:
    """The connections of one host."""

    def __init__(self) -> None:
        self.connections: dict[tuple[int, Tuple5], ConntrackEntry] = {}  # by both of its tuples
        self.fragments = Reassembly()

    def copy(self) -> Tracker:
        """An independent tracker with the same entries."""
        other = Tracker()
        copies: dict[int, ConntrackEntry] = {}
        for where, conn in self.connections.items():
            if id(conn) not in copies:
                copies[id(conn)] = ConntrackEntry(
                    conn.original, conn.answer, conn.nat, conn.replied, conn.mark, conn.label
                )
            other.connections[where] = copies[id(conn)]
        other.fragments = self.fragments.copy()
        return other

    def flush(self, zone: int | None = None) -> None:
        """Remove every entry, or those of one zone."""
        for key in [key for key in self.connections if zone is None or key[0] == zone]:
            del self.connections[key]

    def track(
        self, frame: bytes, key: int, action: Ct, zone: int, came_by: object = None, now_us: int = 0
    ) -> list[tuple[bytes, int]]:
        """The frames that go on, translated by NAT, each with its connection fields as key bits. key: the frame's own.

        A fragment goes on with the last one of its packet. came_by: the way on which the frame came to the tracker.
        """
        if not at.NW_FRAG.get(key):
            batch = [self._track(frame, key, action, zone)]
        else:
            batch = self._track_fragment(frame, key, action, zone, came_by, now_us)
        return self.fragments.released(batch, _fields(INVALID, 0), now_us)

    def _track_fragment(
        self, frame: bytes, key: int, action: Ct, zone: int, came_by: object, now_us: int
    ) -> list[tuple[bytes, int]]:
        try:
            complete = self.fragments.take(frame, key, zone, came_by, now_us)
        except InvalidFragment:
            return [(frame, _fields(TRACKED | INVALID, zone))]
        if complete is None:
            return []
        if action.nat is not None:
            raise UnsupportedFlowError("nat of fragments")
        packet, parts = complete
        _, fields = self._track(packet, extract(packet, 0), action, zone)
        return [(part, fields) for part in parts]

    def _track(self, frame: bytes, key: int, action: Ct, zone: int) -> tuple[bytes, int]:
        found = _tuple_of(frame, key)
        if found is None or not _well_formed(key, found):
            return frame, _fields(TRACKED | INVALID, zone)
        quoted = _quoted(frame, key)
        if quoted is not None:
            return frame, self._related(quoted, zone)
        conn = self.connections.get((zone, found))
        if conn is not None and action.force and found != conn.original:
            self._forget(zone, conn)
            conn = None
        if conn is None:
            return self._first(frame, key, found, action, zone)
        forward = found == conn.original
        conn.replied = conn.replied or not forward
        begins = not conn.replied and (found.proto != TCP or at.TCP_FLAGS.get(key) & (SYN | ACK) == SYN)
        state = TRACKED | (NEW if begins else ESTABLISHED) | (0 if forward else REPLY)
        if action.commit:
            _set_marks(conn, action)
        if action.nat is not None and conn.nat is not None:
            frame, state = _translate(frame, key, conn, forward), state | _nat_state(conn)
        return frame, _fields(state, zone, conn.original, conn.mark, conn.label)

    def _first(self, frame: bytes, key: int, found: Tuple5, action: Ct, zone: int) -> tuple[bytes, int]:
        if not _may_start(key, found):
            return frame, _fields(TRACKED | INVALID, zone)
        state = TRACKED | NEW
        if not action.commit:
            return frame, _fields(state, zone, found)
        conn, nat = ConntrackEntry(found, found.back), action.nat
        if nat is not None and nat.direction is not None:
            conn.nat, conn.answer = nat, self._translated(found, nat, zone).back
        self.connections[zone, conn.original] = self.connections[zone, conn.answer] = conn
        _set_marks(conn, action)
        if conn.nat is not None:
            frame, state = _translate(frame, key, conn, True), state | _nat_state(conn)
        return frame, _fields(state, zone, found, conn.mark, conn.label)

    def _related(self, quoted: Tuple5, zone: int) -> int:
        conn = self.connections.get((zone, quoted))
        if conn is None:
            return _fields(TRACKED | INVALID, zone)
        if conn.nat is not None:
            raise UnsupportedFlowError("an ICMP error about a connection with NAT")
        # The quoted packet went the other way.
        back = 0 if quoted != conn.original else REPLY
        return _fields(TRACKED | RELATED | back, zone, conn.original, conn.mark, conn.label)

    def _forget(self, zone: int, conn: ConntrackEntry) -> None:
        self.connections.pop((zone, conn.original), None)
        self.connections.pop((zone, conn.answer), None)

    def _translated(self, found: Tuple5, nat: Nat, zone: int) -> Tuple5:
        """The tuple of a first packet after NAT: with the first unused address and port of the range."""
        src = nat.direction == "src"
        old_address, old_port = (found.src, found.sport) if src else (found.dst, found.dport)
        first = old_address if nat.address is None else int(nat.address)
        last = first if nat.address_max is None else int(nat.address_max)
        ports = _port_choices(nat, old_port, src)
        for address in range(first, last + 1):
            for port in ports:
                new = found._replace(src=address, sport=port) if src else found._replace(dst=address, dport=port)
                if found.proto in ECHO:
                    new = new._replace(sport=port, dport=port)
                if (zone, new.back) not in self.connections:
                    return new
        raise UnsupportedFlowError(f"nat: every address and port of {nat} is in use")


def _port_choices(nat: Nat, old: int, src: bool) -> list[int]:
    if nat.port is not None:
        return list(range(nat.port, (nat.port_max or nat.port) + 1))
    if not src:
        return [old]
    return [old, *range(FIRST_EPHEMERAL, 65536)]


def _set_marks(conn: ConntrackEntry, action: Ct) -> None:
    for written in action.exec:
        if isinstance(written, SetField):
            if written.field.name == "ct_mark":
                conn.mark = conn.mark & ~written.mask | written.value
            else:
                conn.label = conn.label & ~written.mask | written.value


def _nat_state(conn: ConntrackEntry) -> int:
    return SNAT if conn.nat is not None and conn.nat.direction == "src" else DNAT


def _translate(frame: bytes, key: int, conn: ConntrackEntry, forward: bool) -> bytes:
    """The frame after NAT."""
    new = conn.answer.back if forward else conn.original.back
    src, dst = (at.IPV6_SRC, at.IPV6_DST) if new.ipv6 else (at.NW_SRC, at.NW_DST)
    value, mask = new.src << src.shift | new.dst << dst.shift, src.mask | dst.mask
    if new.proto in (TCP, UDP, SCTP):
        value |= new.sport << at.TP_SRC.shift | new.dport << at.TP_DST.shift
        mask |= at.PORTS_MASK
    elif conn.original.sport != conn.answer.sport:
        raise UnsupportedFlowError("nat of a ping's identifier")
    tags = 1 if at.VLAN_TCI.get(key) else 0
    return write_headers(frame, value, mask, at.ETH_TYPE.get(key), tags)


_STATE, _ZONE, _MARK, _LABEL = (place.shift for place in (at.CT_STATE, at.CT_ZONE, at.CT_MARK, at.CT_LABEL))
_PROTO, _SPORT, _DPORT = (at.SLOTS[name].shift for name in ("ct_nw_proto", "ct_tp_src", "ct_tp_dst"))
_V4, _V6 = (
    tuple(at.SLOTS[name].shift for name in names)
    for names in (("ct_nw_src", "ct_nw_dst"), ("ct_ipv6_src", "ct_ipv6_dst"))
)


def _fields(state: int, zone: int, first: Tuple5 | None = None, mark: int = 0, label: int = 0) -> int:
    """Connection fields as key bits. first: the tuple of the connection's first packet."""
    key = state << _STATE | zone << _ZONE
    if first is None:
        return key
    ipv6, proto, src, dst, sport, dport, icmp_type = first
    if proto in ECHO:
        sport, dport = icmp_type, 0
    at_src, at_dst = _V6 if ipv6 else _V4
    key |= mark << _MARK | label << _LABEL | proto << _PROTO
    return key | src << at_src | dst << at_dst | sport << _SPORT | dport << _DPORT


def _tuple_of(frame: bytes, key: int) -> Tuple5 | None:
    """The tuple of a frame; None for a frame that cannot be tracked."""
    eth_type, proto = at.ETH_TYPE.get(key), at.NW_PROTO.get(key)
    if eth_type not in (IPV4, IPV6) or not proto:
        return None
    ipv6 = eth_type == IPV6
    src, dst = (at.IPV6_SRC, at.IPV6_DST) if ipv6 else (at.NW_SRC, at.NW_DST)
    sport, dport, echo_type = at.TP_SRC.get(key), at.TP_DST.get(key), 0
    if proto in ECHO and proto == (ICMPV6 if ipv6 else ICMP):
        start = _payload(frame, key)[0]
        if sport in ECHO[proto]:
            echo_type = sport
            sport = dport = int.from_bytes(frame[start + 4 : start + 6], "big")
        elif sport not in ERRORS[proto]:
            return None
    elif proto not in (TCP, UDP, SCTP):
        sport = dport = 0  # other protocols have connections by their addresses alone (conntrack-other.c)
    return Tuple5(ipv6, proto, src.get(key), dst.get(key), sport, dport, echo_type)


def _payload(frame: bytes, key: int) -> tuple[int, int]:
    """The offsets of a frame's transport header and of the packet's end. By the key the frame has one."""
    start = 18 if at.VLAN_TCI.get(key) else 14
    if at.ETH_TYPE.get(key) == IPV4:
        return start + (frame[start] & 15) * 4, start + int.from_bytes(frame[start + 2 : start + 4], "big")
    end = start + 40 + int.from_bytes(frame[start + 4 : start + 6], "big")
    found = ipv6_payload(frame, start, end)
    return (found[2] if found else end), end


def _well_formed(key: int, found: Tuple5) -> bool:
    """Whether a packet can belong to a connection at all (conntrack-tcp.c, tcp_invalid_flags)."""
    if found.proto == TCP:
        flags = at.TCP_FLAGS.get(key)
        if not found.sport or not found.dport:
            return False
        if flags & SYN:
            return not flags & (RST | FIN)
        return bool(flags & (ACK | RST)) and (bool(flags & ACK) or not flags & (FIN | PSH | URG))
    if found.proto in (UDP, SCTP):
        return bool(found.dport)
    return True


def _may_start(key: int, found: Tuple5) -> bool:
    """Whether a packet can be the first of a connection: not half of a handshake, not the answer to a ping."""
    if found.proto == TCP:
        return at.TCP_FLAGS.get(key) & (SYN | ACK) != SYN | ACK
    if found.proto in ECHO:
        return at.TP_SRC.get(key) == ECHO[found.proto][0]
    return True


def _quoted(frame: bytes, key: int) -> Tuple5 | None:
    """The tuple that an ICMP error quotes; None for any other packet."""
    proto = at.NW_PROTO.get(key)
    if proto not in ERRORS or at.TP_SRC.get(key) not in ERRORS[proto]:
        return None
    start, end = _payload(frame, key)
    inner = frame[start + 8 : end]
    ipv6 = proto == ICMPV6
    if len(inner) < (48 if ipv6 else 28):
        return None
    if ipv6:
        inner_proto, ports = inner[6], inner[40:44]
        src, dst = int.from_bytes(inner[8:24], "big"), int.from_bytes(inner[24:40], "big")
    else:
        header = (inner[0] & 15) * 4
        inner_proto, ports = inner[9], inner[header : header + 4]
        src, dst = int.from_bytes(inner[12:16], "big"), int.from_bytes(inner[16:20], "big")
    sport, dport = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
    icmp_type = 0
    if inner_proto in ECHO:
        icmp_type = ports[0]
        start = 40 if ipv6 else (inner[0] & 15) * 4
        sport = dport = int.from_bytes(inner[start + 4 : start + 6], "big")
    return Tuple5(ipv6, inner_proto, src, dst, sport, dport, icmp_type)
