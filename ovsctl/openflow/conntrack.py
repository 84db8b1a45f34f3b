"""The connection tracking actions: ct and the nat inside it (ovs-actions(7), "The ct action")."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from ovsctl.openflow.actions import Action, as_actions, check_range, encode_actions, nicira, ofs_nbits
from ovsctl.openflow.errors import ActionError
from ovsctl.openflow.fields import Subfield, subfield

_set = object.__setattr__
_CT = struct.Struct(">H4sHB3xH")
ALGS = {"ftp": 21, "tftp": 69}
_SETTABLE = ("ct_mark", "ct_label")


@dataclass(frozen=True, slots=True)
class Nat(Action):
    """Translate a connection's source or destination when it commits; without arguments, as it was committed.

    `address` to `address_max` and `port` to `port_max` are ranges, both ends included.
    """

    direction: Literal["src", "dst"] | None = None
    address: IPv4Address | IPv6Address | None = None
    address_max: IPv4Address | IPv6Address | None = None
    port: int | None = None
    port_max: int | None = None
    persistent: bool = False
    hash: bool = False
    random: bool = False

    def __init__(
        self,
        direction: Literal["src", "dst"] | None = None,
        address: str | IPv4Address | IPv6Address | None = None,
        address_max: str | IPv4Address | IPv6Address | None = None,
        port: int | None = None,
        port_max: int | None = None,
        persistent: bool = False,
        hash: bool = False,
        random: bool = False,
    ) -> None:
        first, last = _address(address), _address(address_max)
        _set(self, "direction", direction)
        _set(self, "address", first)
        _set(self, "address_max", None if last == first else last)
        _set(self, "port", port)
        _set(self, "port_max", None if port_max == port else port_max)
        _set(self, "persistent", persistent)
        _set(self, "hash", hash)
        _set(self, "random", random)
        self._check()

    def _check(self) -> None:
        if self.direction not in (None, "src", "dst"):
            raise ActionError("nat", f"direction {self.direction!r} is not src or dst")
        if self.hash and self.random:
            raise ActionError("nat", "hash and random exclude each other")
        flags = self.persistent or self.hash or self.random
        if self.direction is None and (self.address is not None or flags):
            raise ActionError("nat", "an address range or flags need a direction, src or dst")
        if self.address is None and (self.address_max is not None or self.port is not None):
            raise ActionError("nat", "a port range or the end of an address range needs an address")
        if self.port is None and self.port_max is not None:
            raise ActionError("nat", "the end of a port range needs its start")
        if self.address is not None:
            _check_addresses(self.address, self.address_max)
        if self.port is not None:
            check_range("nat", "port", self.port, 1, 0xFFFF)
            check_range("nat", "port_max", self.port_max or self.port, self.port, 0xFFFF)

    def encode(self) -> bytes:
        flags = {None: 0, "src": 1, "dst": 2}[self.direction]
        flags |= self.persistent << 2 | self.hash << 3 | self.random << 4
        present, body = 0, b""
        if self.address is not None:
            shift = 0 if self.address.version == 4 else 2
            present, body = 1 << shift, self.address.packed
            if self.address_max is not None:
                present, body = present | 2 << shift, body + self.address_max.packed
        if self.port is not None:
            present, body = present | 16, body + self.port.to_bytes(2, "big")
        if self.port_max is not None:
            present, body = present | 32, body + self.port_max.to_bytes(2, "big")
        return nicira(36, struct.pack(">2xHH", flags, present) + body)


def _address(value: str | IPv4Address | IPv6Address | None) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(value) if isinstance(value, str) else value
    except ValueError:
        raise ActionError("nat", f"{value!r} is not an IP address") from None


def _check_addresses(first: IPv4Address | IPv6Address, last: IPv4Address | IPv6Address | None) -> None:
    if int(first) == 0:
        raise ActionError("nat", "the address 0 stands for none: leave it out")
    if last is not None and (last.version != first.version or int(last) < int(first)):
        raise ActionError("nat", f"{first} to {last} is not a range")


@dataclass(frozen=True, slots=True)
class Ct(Action):
    """Send the packet through the connection tracker, zone `zone` (a number or a 16-bit sub-field).

    With `table`, a copy with its ct_ fields set goes on there. `commit` enters the connection; then `nat` and
    `exec` (SetField or Move to ct_mark and ct_label) are done in the tracker.
    """

    commit: bool = False
    force: bool = False
    table: int | None = None
    zone: int | Subfield = 0
    alg: int = 0
    nat: Nat | None = None
    exec: tuple[Action, ...] = ()

    def __init__(
        self,
        commit: bool = False,
        force: bool = False,
        table: int | None = None,
        zone: int | Subfield | str = 0,
        alg: int | Literal["ftp", "tftp"] = 0,
        nat: Nat | None = None,
        exec: tuple[Action, ...] | list[Action] = (),
    ) -> None:
        _set(self, "commit", commit)
        _set(self, "force", force)
        _set(self, "table", table)
        _set(self, "zone", subfield(zone) if isinstance(zone, str) else zone)
        _set(self, "alg", ALGS.get(alg, alg) if isinstance(alg, str) else alg)
        _set(self, "nat", nat)
        _set(self, "exec", as_actions("ct", exec))
        self._check()

    def _check(self) -> None:
        if self.table is not None:
            check_range("ct", "table", self.table, 0, 254)
        if isinstance(self.zone, Subfield):
            if self.zone.bits != 16:
                raise ActionError("ct", f"zone {self.zone} is not 16 bits")
        else:
            check_range("ct", "zone", self.zone, 0, 0xFFFF)
        check_range("ct", "alg", self.alg, 0, 0xFFFF)
        if self.force and not self.commit:
            raise ActionError("ct", "force needs commit")
        if not self.commit and (self.exec or (self.nat is not None and self.nat.direction)):
            raise ActionError("ct", "exec, and nat with arguments, need commit")
        for action in self.exec:
            target = getattr(action, "target", None)
            written = getattr(action, "field", None) or getattr(target, "field", None)
            if written is None or written.name not in _SETTABLE:
                raise ActionError("ct", f"exec sets ct_mark and ct_label only, not {action!r}")

    def encode(self) -> bytes:
        if isinstance(self.zone, Subfield):
            source, zone = self.zone.field.header(), ofs_nbits(self.zone)
        else:
            source, zone = b"\0\0\0\0", self.zone
        flags = self.commit | self.force << 1
        body = _CT.pack(flags, source, zone, 255 if self.table is None else self.table, self.alg)
        if self.nat is not None:
            body += self.nat.encode()
        return nicira(35, body + encode_actions(self.exec))
