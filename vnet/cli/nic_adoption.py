"""A NIC that carries the host's own address goes into a bridge of Open vSwitch, and the address to the bridge; or back.

One rule: a process of its own makes the change, proves it, and takes it back unless it is proved. The connection that asked for
it may be the one that is cut.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from vnet.cli.output import say
from vnet.util.commands import ToolFailed, run

OVS_TIMEOUT_S = 10
BATCH = "ip-batch"  # in place of a command: lines for one run of ip
PROVE_S = 10.0  # within which all that must answer does, after the change
TRY_AGAIN_S = 0.5
OWN_ROUTES = ("local", "broadcast", "multicast", "anycast", "unreachable", "ff00::/8", "fe80::/64")


@dataclass(frozen=True, slots=True)
class NicUse:
    """What a device carries: its MAC, MTU in bytes, addresses and routes as `ip` takes them. master: the bridge or bond that has it."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    master: str = ""

    @property
    def gateways(self) -> tuple[str, ...]:
        words = [route.split() for route in self.routes]
        return tuple(dict.fromkeys(w[w.index("via") + 1] for w in words if "via" in w))


@dataclass(frozen=True, slots=True)
class Adoption:
    """Commands that make the change, and that take it back; what must answer before and after. last: what is done once that is proved."""

    forward: tuple[tuple[str, ...], ...]
    back: tuple[tuple[str, ...], ...]
    checks: tuple[str, ...]
    last: tuple[tuple[str, ...], ...] = ()


def look(name: str) -> NicUse:
    """What a device carries now. Raises ToolFailed if there is none, or its address is leased."""
    (found,) = json.loads(run("ip", "-j", "address", "show", "dev", name))
    addresses = [text for info in found["addr_info"] if (text := _address(name, info))]
    routes = []
    for family in ("-4", "-6"):
        lines = run("ip", family, "route", "show", "table", "all", "dev", name).splitlines()
        routes += [f"{family} {line.strip()}" for line in lines if _is_set(line)]
    return NicUse(name, found["address"], found["mtu"], tuple(addresses), tuple(routes), found.get("master", ""))


def _address(device: str, info: dict[str, Any]) -> str:
    """An address as `ip address add` takes it; "" for one that the kernel makes by itself."""
    text = f"{info['local']}/{info['prefixlen']}"
    if info["family"] == "inet6" and (info["scope"] == "link" or info.get("dynamic")):
        return ""
    if info.get("dynamic"):
        raise ToolFailed(
            f"{device} has {text} by DHCP: the client would go on there. Give the host a fixed address first, "
            "or have its own configuration make the bridge (docs/install.md)"
        )
    return text + (f" broadcast {info['broadcast']}" if "broadcast" in info else "")


def _is_set(route: str) -> bool:
    """Whether somebody set a route; the kernel makes others from addresses and advertisements."""
    return not route.startswith(OWN_ROUTES) and "proto kernel" not in route and "proto ra" not in route


def adopt(nic: str, bridge: str, checks: Sequence[str]) -> Adoption:
    """How a NIC goes into a new bridge, with what it carries. Raises ToolFailed."""
    device = look(nic)
    if device.master or _bridge_of(nic):
        raise ToolFailed(f"{nic} is in {device.master or 'a bridge'} already")
    if not device.addresses:
        raise ToolFailed(
            f"{nic} carries no address of the host: name it in the uplink's 'members', and the agent takes it"
        )
    if bridge in run("ovs-vsctl", "list-br").split():
        raise ToolFailed(f"there is a bridge {bridge} already: another name by --bridge, or put {nic} into it by hand")
    datapath = run("ovs-vsctl", "--if-exists", "get", "bridge", "br-int", "datapath_type").strip().strip('"')
    made = _ovs(
        *("add-br", bridge, "--", "set", "bridge", bridge, f'other_config:hwaddr="{device.mac}"'),
        *(f"datapath_type={datapath}",) * bool(datapath),
        *("--", "set", "interface", bridge, f"mtu_request={device.mtu}", "--", "add-port", bridge, nic),
    )
    return Adoption(
        (made, _carried(device, bridge, instead_of=nic)),
        (_ovs("--if-exists", "del-br", bridge), _carried(device, nic)),
        _needed(device, checks),
    )


def give_back(nic: str, checks: Sequence[str]) -> Adoption:
    """How a NIC leaves its bridge, with what the bridge carries. The bridge goes if nothing else is on it. Raises ToolFailed."""
    if not (bridge := _bridge_of(nic)):
        raise ToolFailed(f"{nic} is in no bridge of Open vSwitch")
    device = look(bridge)
    alone = run("ovs-vsctl", "list-ports", bridge).split() == [nic]
    return Adoption(
        (_ovs("del-port", bridge, nic), _carried(device, nic, instead_of=bridge)),
        (_ovs("--may-exist", "add-port", bridge, nic), _carried(device, bridge, instead_of=nic)),
        _needed(device, checks),
        (_ovs("del-br", bridge),) if alone else (),
    )


def _bridge_of(nic: str) -> str:
    """The bridge of Open vSwitch that has a NIC, "" for none. Raises ToolFailed if Open vSwitch does not answer."""
    run("ovs-vsctl", "list-br")
    return run("ovs-vsctl", "port-to-br", nic, fine=True).strip()


def _ovs(*words: str) -> tuple[str, ...]:
    return ("ovs-vsctl", f"--timeout={OVS_TIMEOUT_S}", *words)


def _needed(device: NicUse, checks: Sequence[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys((*checks, *device.gateways)))
    if not found:
        raise ToolFailed(
            f"{device.name} has no gateway that would show whether the host is reached: name an address by --check"
        )
    return found


def _carried(device: NicUse, to: str, instead_of: str = "") -> tuple[str, ...]:
    """One run of `ip` that has `to` carry all that `device` does now, and another device nothing."""
    lines = [
        *([f"address flush dev {instead_of}"] if instead_of else []),
        f"link set dev {to} up",
        *(f"address replace {address} dev {to}" for address in device.addresses),
        *(f"route replace {route.split(' ', 1)[1]} dev {to}" for route in device.routes if route.startswith("-4")),
        *(f"-6 route replace {route.split(' ', 1)[1]} dev {to}" for route in device.routes if route.startswith("-6")),
    ]
    return (BATCH, *lines)


def answers(check: str) -> bool:
    """Whether an address answers a ping, or HOST:PORT takes a TCP connection."""
    try:
        ip_address(check)
    except ValueError:
        host, _, port = check.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        except OSError:
            return False
        return True
    return subprocess.run(["ping", "-n", "-c", "1", "-W", "1", check], capture_output=True, check=False).returncode == 0


def shown(command: Sequence[str]) -> list[str]:
    """A command as one types it."""
    if command[0] != BATCH:
        return [shlex.join(command)]
    return [f"ip {line}" for line in command[1:]]


def execute(command: Sequence[str]) -> str:
    """Run a command; what went wrong, "" for nothing. A batch of `ip` goes on after an error."""
    try:
        if command[0] == BATCH:
            run("ip", "-force", "-batch", "-", stdin="\n".join(command[1:]) + "\n")
        else:
            run(*command, timeout_s=2 * OVS_TIMEOUT_S)
    except ToolFailed as error:
        return str(error)
    return ""


def carry_out(move: Adoption) -> bool:
    """Make the change, prove it, take it back unless it is proved; whether it stays. Prints what it does."""
    unreached = [check for check in move.checks if not answers(check)]
    if unreached:
        say(f"nothing changed: {', '.join(unreached)} does not answer now, so it could prove nothing")
        return False
    wrong = next((error for command in move.forward if (error := execute(command))), "")
    if not wrong:
        ends = time.monotonic() + PROVE_S
        while (unreached := [check for check in move.checks if not answers(check)]) and time.monotonic() < ends:
            time.sleep(TRY_AGAIN_S)
        if not unreached:
            say(f"proved: {', '.join(move.checks)} answers")
            _finish(move.last)
            return True
        wrong = f"{', '.join(unreached)} does not answer"
    say(f"taken back: {wrong}")
    _finish(move.back)
    return False


def _finish(commands: Sequence[Sequence[str]]) -> None:
    for command in commands:
        if error := execute(command):
            say(f"{shown(command)[0]}: {error}")


def in_background(move: Adoption, log: Path) -> subprocess.Popen[bytes]:
    """Carry a move out in a session of its own, which no terminal's end takes away. It prints into `log`."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "vnet.cli.nic_adoption", json.dumps(asdict(move))],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    sys.exit(not carry_out(Adoption(**told)))
