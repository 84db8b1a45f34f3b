"""ovs-appctl(8) without a process: commands over a daemon's control socket (unixctl).

Rule: one connection per command, so a daemon that restarts in between is no error, and a reply is bounded.
The protocol is JSON-RPC 1.0 on a unix stream socket without framing: a request's `params` are strings, the reply has
a string in `result` or in `error`.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from ovsctl.ovsdb.errors import ProtocolError
from ovsctl.ovsdb.framing import Framer

MAX_REPLY_BYTES = 256 * 1024 * 1024  # a dump of a million datapath flows
_CHUNK_BYTES = 256 * 1024
_T = TypeVar("_T")


class AppctlError(Exception):
    """A command did not give a result. `socket` and `command` say where and what."""

    def __init__(self, socket: Path, command: tuple[str, ...], reason: str) -> None:
        self.socket = socket
        self.command = command
        self.reason = reason
        super().__init__(f"{socket}: {' '.join(command)[:200]}: {reason}")


class DaemonUnreachable(AppctlError):
    """No daemon listens on the socket, it may not be opened, or the daemon went away: start it, then try again."""


class CommandTimedOut(AppctlError):
    """The daemon did not answer in time. The command may have been, or may yet be, carried out."""


class CommandRefused(AppctlError):
    """The daemon answered with an error: no such command, bridge, port, ..."""


class BadReply(AppctlError):
    """The peer's answer is not what the protocol or the command's format allows."""


class _Reply(msgspec.Struct):
    id: int | None
    result: str | None = None
    error: str | None = None


def encode_request(command: tuple[str, ...]) -> bytes:
    """The request for `command`, its name first."""
    return msgspec.json.encode({"id": 0, "method": command[0], "params": command[1:]})


def decode_reply(data: bytes | bytearray, path: Path, command: tuple[str, ...]) -> str:
    """The result in a reply; raises `CommandRefused` with the daemon's error, or `BadReply`."""
    try:
        reply = msgspec.json.decode(data, type=_Reply)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadReply(path, command, f"not a unixctl reply: {error}") from error
    if reply.error is not None:
        raise CommandRefused(path, command, reply.error.strip())
    if reply.result is None or reply.id != 0:
        raise BadReply(path, command, "neither a result nor an error for our request")
    return reply.result


def control_socket(run_dir: Path | str, daemon: str = "ovs-vswitchd") -> Path:
    """The control socket of a daemon by its pid file, as ovs-appctl's `--target` finds it.

    Raises `DaemonUnreachable` when there is no pid file, so no such daemon.
    """
    pid_file = Path(run_dir) / f"{daemon}.pid"
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError) as error:
        raise DaemonUnreachable(pid_file, (), f"cannot tell {daemon}'s process id: {error}") from error
    return pid_file.with_name(f"{daemon}.{pid}.ctl")


def call_sync(
    path: Path | str, name: str, *args: str, timeout_s: float = 10.0, max_reply_bytes: int = MAX_REPLY_BYTES
) -> str:
    """Run one command and return its output; the blocking twin of `Appctl.call`, same errors."""
    path, command = Path(path), (name, *args)
    deadline = time.monotonic() + timeout_s
    framer = Framer(max_reply_bytes)
    reply = None
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(encode_request(command))
            while reply is None:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                reply = _feed(framer, connection.recv(_CHUNK_BYTES), path, command)
    except TimeoutError as error:
        raise CommandTimedOut(path, command, f"no answer within {timeout_s} s") from error
    except OSError as error:
        raise _unreachable(path, command, error) from error
    return decode_reply(reply, path, command)


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """One row of fdb/show: a MAC learned on a port. `ofport` None is the bridge's local port; `age_s` None static."""

    ofport: int | None
    vlan: int
    mac: str
    age_s: int | None


@dataclass(frozen=True, slots=True)
class BondMember:
    """One interface of a bond."""

    name: str
    enabled: bool
    active: bool
    may_enable: bool


@dataclass(frozen=True, slots=True)
class Bond:
    """One bond of bond/show; `fields` has every other line as it was printed."""

    name: str
    mode: str
    lacp_status: str
    active_member: str | None
    members: tuple[BondMember, ...]
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Appctl:
    """A daemon's control socket. Calls may run at the same time; the daemon answers them one after another."""

    path: Path
    timeout_s: float = 10.0
    max_reply_bytes: int = MAX_REPLY_BYTES

    async def call(self, name: str, *args: str) -> str:
        """Run one command and return its output. Raises `CommandRefused`, `DaemonUnreachable`, `CommandTimedOut` or `BadReply`."""
        command = (name, *args)
        try:
            async with asyncio.timeout(self.timeout_s):
                data = await self._exchange(command)
        except TimeoutError as error:
            raise CommandTimedOut(self.path, command, f"no answer within {self.timeout_s} s") from error
        except OSError as error:
            raise _unreachable(self.path, command, error) from error
        return decode_reply(data, self.path, command)

    async def _exchange(self, command: tuple[str, ...]) -> bytes | bytearray:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=_CHUNK_BYTES)
        framer = Framer(self.max_reply_bytes)
        reply = None
        try:
            writer.write(encode_request(command))
            while reply is None:
                reply = _feed(framer, await reader.read(_CHUNK_BYTES), self.path, command)
        finally:
            writer.close()
        return reply

    async def commands(self) -> frozenset[str]:
        """The names of all commands that this daemon has."""
        lines = (await self.call("list-commands")).splitlines()[1:]
        return frozenset(line.split()[0] for line in lines if line.strip())

    async def ofproto_trace(self, bridge: str, flow: str, *options: str, packet: bytes | None = None) -> str:
        """ofproto/trace: what `bridge` does with `flow` (a match such as `in_port=1,tcp`), or with `packet`.

        `options` such as `--ct-next trk,est` go in front; with `packet`, `flow` gives the metadata (in_port, ...).
        """
        hexdump = () if packet is None else (packet.hex(),)
        return await self.call("ofproto/trace", *options, bridge, flow, *hexdump)

    async def fdb_show(self, bridge: str) -> tuple[FdbEntry, ...]:
        """fdb/show: the MACs that `bridge` has learned with NORMAL."""
        return await self._table(parse_fdb, "fdb/show", bridge)

    async def bond_show(self, *names: str) -> tuple[Bond, ...]:
        """bond/show: the bond of that name, or all."""
        return await self._table(parse_bonds, "bond/show", *names)

    async def dpctl_dump_flows(self, *args: str) -> tuple[str, ...]:
        """dpctl/dump-flows: the datapath's flows, a line each; `args` such as `-m`, `netdev@ovs-netdev`."""
        lines = (await self.call("dpctl/dump-flows", *args)).splitlines()
        return tuple(line for line in lines if line and not line.startswith("flow-dump from "))

    async def dpctl_dump_conntrack(self, *args: str) -> tuple[str, ...]:
        """dpctl/dump-conntrack: the connections, a line each; `args` such as `zone=5`."""
        return tuple(filter(None, (await self.call("dpctl/dump-conntrack", *args)).splitlines()))

    async def netdev_dummy_receive(self, device: str, packet: bytes) -> None:
        """netdev-dummy/receive: let an Ethernet frame arrive on a device of type dummy."""
        await self.call("netdev-dummy/receive", device, packet.hex())

    async def _table(self, parse: Callable[[str], tuple[_T, ...]], name: str, *args: str) -> tuple[_T, ...]:
        text = await self.call(name, *args)
        try:
            return parse(text)
        except ValueError as error:
            raise BadReply(self.path, (name, *args), str(error)) from error


def parse_fdb(text: str) -> tuple[FdbEntry, ...]:
    """The rows of fdb/show's output. Raises ValueError at a row that is not one."""
    return tuple(_fdb_entry(line) for line in text.splitlines()[1:])


def _fdb_entry(line: str) -> FdbEntry:
    try:
        ofport, vlan, mac, age = line.split()
        return FdbEntry(
            None if ofport == "LOCAL" else int(ofport), int(vlan), mac, None if age == "static" else int(age)
        )
    except ValueError as error:
        raise ValueError(f"not a row of fdb/show: {line!r}") from error


_BOND_HEADER = re.compile(r"---- (.+) ----")
_BOND_MEMBER = re.compile(r"(?:member|slave) (.+): (enabled|disabled)")
_ACTIVE_MEMBER = re.compile(r"[0-9a-f:]+\((.+)\)")


def parse_bonds(text: str) -> tuple[Bond, ...]:
    """The bonds of bond/show's output. Raises ValueError at a line that does not belong there."""
    _, *parts = _BOND_HEADER.split(text) if text else ("",)
    return tuple(_bond(name, body.splitlines()) for name, body in zip(parts[::2], parts[1::2], strict=True))


def _bond(name: str, lines: Iterable[str]) -> Bond:
    fields: dict[str, str] = {}
    members: list[dict[str, str]] = []
    for line in filter(str.strip, lines):
        if match := _BOND_MEMBER.fullmatch(line):
            members.append({"name": match[1], "state": match[2]})
        elif members:
            key, _, value = line.strip().partition(": ")
            members[-1][key] = value
        elif ":" in line:
            key, _, value = line.partition(":")
            fields[key] = value.strip()
        else:
            raise ValueError(f"bond {name!r}: not a line of bond/show: {line!r}")
    active = _ACTIVE_MEMBER.fullmatch(fields.get("active member mac", ""))
    return Bond(
        name=name,
        mode=fields.get("bond_mode", ""),
        lacp_status=fields.get("lacp_status", ""),
        active_member=active[1] if active and active[1] != "none" else None,
        members=tuple(map(_bond_member, members)),
        fields=fields,
    )


def _bond_member(lines: Mapping[str, str]) -> BondMember:
    return BondMember(
        name=lines["name"],
        enabled=lines["state"] == "enabled",
        active="active member" in lines or "active slave" in lines,
        may_enable=lines.get("may_enable") == "true",
    )


def _feed(framer: Framer, chunk: bytes, path: Path, command: tuple[str, ...]) -> bytes | bytearray | None:
    """Take what was received; the reply once it is complete."""
    if not chunk:
        raise DaemonUnreachable(path, command, "the daemon closed the connection before its answer was complete")
    try:
        replies = framer.feed(chunk)
    except ProtocolError as error:
        raise BadReply(path, command, str(error)) from error
    return replies[0] if replies else None


def _unreachable(path: Path, command: tuple[str, ...], error: OSError) -> DaemonUnreachable:
    hints = {
        errno.ENOENT: "no such socket: is the daemon running, and is this its run directory?",
        errno.ECONNREFUSED: "nobody listens: the daemon ended without removing its socket; start it again",
        errno.EACCES: "permission denied: the socket belongs to another user",
    }
    return DaemonUnreachable(path, command, hints.get(error.errno or 0, str(error)))
