"""`vnet doctor`: what of a host's surroundings is wrong for its networks, and what to do.

One rule: it looks and asks, and changes nothing. What the agent knows itself it is asked for; the rest is tried out as the host would use it.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import stat
import struct
import subprocess
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from vnet import VERSION
from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import Column, dump, output_option, print_table, progress
from vnet.cli.remote import connected, socket_option
from vnet.util.commands import ToolFailed, run

TIMEOUT_S = 3
SIOCETHTOOL = 0x8946
# Name, command to read it and its bit (linux/ethtool.h).
OFFLOADS = (("lro", 0x25, 1 << 15), ("gro", 0x2B, 1), ("tso", 0x1E, 1))
AT_ONCE = 32  # peers that are probed at a time
IP_ICMP_BYTES = {4: 28, 6: 48}  # headers of an echo request
LEAST_MTU = {4: 576, 6: 1280}  # RFC 791 §3.1, RFC 8200 §5


class Diagnosis(StrEnum):
    OK = "ok"
    WRONG = "wrong"
    UNKNOWN = "unknown"  # what it takes to find out is not here


@dataclass(frozen=True, slots=True)
class Examined:
    """One thing that was looked at. remedy: what to do, "" where nothing is wrong."""

    subject: str
    finding: Diagnosis
    text: str
    remedy: str = ""


COLUMNS: list[Column] = [
    ("LOOKED AT", lambda e: e.subject),
    ("FINDING", lambda e: e.finding.value),
    ("SAYS", lambda e: e.text),
    ("DO", lambda e: e.remedy),
]


@click.command()
@socket_option
@click.option(
    "--tunnels",
    is_flag=True,
    help="The pool's tunnels instead, each tried out both ways by a frame; it asks the controller.",
)
@click.option(
    "--pool",
    is_flag=True,
    help="The network between all hosts instead, which each looks at anew; it asks the controller.",
)
@output_option
def doctor(socket: str, tunnels: bool, pool: bool, output: str) -> None:
    """Examine this host: its agent and certificate, Open vSwitch, uplinks, the pool database, and the path to every peer at full size.

    Run it as root on the host. It changes nothing. The exit code is 1 if something is wrong. The pool as a whole: 'vnet status',
    'vnet doctor --pool', and 'vnet doctor --tunnels', which no guest notices.
    """
    looked = _tunnels() if tunnels else _pool() if pool else examine(socket)
    found = sorted(looked, key=lambda e: e.finding is not Diagnosis.WRONG)
    if output == "table":
        print_table(found, COLUMNS)
    else:
        dump([asdict(e) | {"finding": e.finding.value} for e in found], output)
    wrong = sum(e.finding is Diagnosis.WRONG for e in found)
    if wrong:
        raise CommandError(f"{wrong} of {len(found)} {'is' if wrong == 1 else 'are'} wrong", ExitCode.FAILED)


def examine(path: str) -> Iterator[Examined]:
    from vnet.api.errors import ClientError  # noqa: PLC0415
    from vnet.client.local import call_agent  # noqa: PLC0415

    try:
        status, around = call_agent("status", {}, path), call_agent("surroundings", {}, path)
    except ClientError as error:
        yield Examined("agent", Diagnosis.WRONG, str(error), "is vnet-agent running? 'systemctl status vnet-agent'")
        return
    yield from _agent(status, around, path)
    yield from _sockets(Path(path).parent)
    if around["openflow"]:
        yield from _elsewhere(around)
    else:
        yield from _switch(around)
        yield from _uplinks(around["uplinks"], Path(around["ovs_rundir"]))
    if around["identity"] is not None:
        yield _certificate(Path(around["identity"]["own"]))
    for remote in around["pool"]:
        progress(f"pool database {remote}")
        yield _database(remote, around["identity"])
    yield _clock()
    if not around["openflow"]:
        yield from _peers(around)


def _tunnels() -> Iterator[Examined]:
    from random import SystemRandom  # noqa: PLC0415

    from vnet.cli.tunnel_check import paths, tried  # noqa: PLC0415

    with connected() as client:
        wanted = paths(client.networks(), client.vifs())
        if not wanted:
            yield Examined(
                "tunnels",
                Diagnosis.UNKNOWN,
                "no two hosts have VIFs with IPv4 addresses on a tunnel network",
                "plug some",
            )
        for path, came, refusal in tried(client, wanted, SystemRandom()):
            source, to = path.hosts
            subject = f"tunnel {source} to {to} (network {path.network})"
            if came:
                yield Examined(subject, Diagnosis.OK, "a frame came")
            elif refusal:
                yield Examined(subject, Diagnosis.UNKNOWN, f"nothing was sent: {refusal}", "'vnet status'")
            else:
                remedy = (
                    f"a firewall between them? 'vnet trace {path.source.id} {path.to.id} --live'; 'vnet doctor' on both"
                )
                yield Examined(subject, Diagnosis.WRONG, f"a frame was sent, and did not come to {to}", remedy)


def _pool() -> Iterator[Examined]:
    """The network between the hosts: what is wrong, with what to do, then what works."""
    with connected() as client:
        progress("the hosts look at the network between them")
        found = client.look()
    for finding in found.findings:
        yield Examined(" and ".join(finding.hosts) or "pool", Diagnosis.WRONG, finding.text, finding.remedy)
    for host, problem in found.missing.items():
        yield Examined(host, Diagnosis.UNKNOWN, problem, "'vnet status'; 'vnet doctor' on the host")
    for uplink in found.uplinks:
        if uplink.heard:
            text = f"{len(uplink.vlans)} VLANs looked at, heard {len(uplink.heard)} other hosts"
            yield Examined(f"uplink {uplink.uplink} of {uplink.host}", Diagnosis.OK, text)
    for link in found.neighbours:
        more = (link.port_description, link.address, f"untagged VLAN {link.vlan}" if link.vlan else "")
        text = f"at {link.place} ({link.chassis} {link.port})"
        yield Examined(f"{link.nic} of {link.host}", Diagnosis.OK, ", ".join((text, *filter(None, more))))
    for it in found.tunnels:
        subject = f"{it.via} tunnel {it.source} to {it.to}"
        if it.passes is None:
            yield Examined(subject, Diagnosis.UNKNOWN, f"{it.to} has not answered yet", "ask again in some seconds")
        elif it.passes and (it.mtu is None or it.needs is None or it.mtu >= it.needs):
            size = f", packets of {it.mtu} bytes" if it.mtu is not None else ""
            trip = f", {it.round_trip_us / 1000:.2f} ms there and back" if it.round_trip_us is not None else ""
            yield Examined(subject, Diagnosis.OK, f"frames pass{size}{trip}")


def _agent(status: dict[str, Any], around: dict[str, Any], path: str) -> Iterator[Examined]:
    if around["version"] == VERSION:
        yield Examined("agent", Diagnosis.OK, f"version {VERSION}, host {around['host']}")
    else:
        remedy = "'systemctl restart vnet-agent' after an upgrade: no frame is lost by it"
        yield Examined("agent", Diagnosis.WRONG, f"runs version {around['version']}, installed is {VERSION}", remedy)
    for subject, text in status["problems"].items():
        yield Examined(subject, Diagnosis.WRONG, text, "docs/troubleshooting.md, by this text")


def _elsewhere(around: dict[str, Any]) -> Iterator[Examined]:
    """A host that has no agent on it: what its agent is connected to, and what cannot be looked at, or done, from here."""
    from vnet.agent.switch_access import WITHOUT  # noqa: PLC0415

    host, where = around["host"], f"bridges of host {around['host']}"
    if around["switch"]:
        yield Examined(where, Diagnosis.OK, f"connected to {around['openflow']}")
    else:
        remedy = (
            f"on the host: 'ovs-vsctl list controller', 'ovs-vsctl get-ssl'; here: a firewall for {around['openflow']}"
        )
        yield Examined(where, Diagnosis.WRONG, f"not connected to {around['openflow']}", remedy)
    for part, text in WITHOUT.items():
        yield Examined(
            f"{part} of host {host}", Diagnosis.UNKNOWN, f"off, as its agent runs on another machine: {text}"
        )


def _sockets(directory: Path) -> Iterator[Examined]:
    """The daemons' sockets: who may use them is who may do everything."""
    for path in sorted(directory.glob("*.sock")):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o007 and directory.stat().st_mode & 0o001:
            yield Examined(
                str(path), Diagnosis.WRONG, f"everybody on this host may use it (mode {mode:o})", f"chmod 660 {path}"
            )
        else:
            yield Examined(str(path), Diagnosis.OK, f"mode {mode:o}")


def _uplinks(uplinks: dict[str, dict[str, Any]], rundir: Path) -> Iterator[Examined]:
    for bridge, found in sorted(uplinks.items()):
        if found["ours"]:  # on a bridge that was there others have flows
            yield _flows(bridge, rundir)
        for nic in found["nics"]:
            yield _offloads(nic, flags(nic))


def _flows(bridge: str, rundir: Path) -> Examined:
    """Whether a bridge that we made has flows of somebody else, which may take frames from us."""
    from vnet.compile import COOKIE_MARK  # noqa: PLC0415

    command = "ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", f"unix:{rundir / bridge}.mgmt"
    try:
        lines = run(*command).splitlines()
    except ToolFailed as error:
        return Examined(f"flows of {bridge}", Diagnosis.UNKNOWN, str(error), "'systemctl status openvswitch-switch'")
    ours = f"cookie=0x{COOKIE_MARK >> 48:x}"
    others = [
        line
        for line in lines
        if "actions=" in line and ours not in line and not line.strip().endswith("priority=0 actions=NORMAL")
    ]
    if others:
        text = f"{len(others)} of others, which may take frames past ours: {others[0].strip()[:100]}"
        return Examined(
            f"flows of {bridge}", Diagnosis.WRONG, text, f"'ovs-ofctl dump-flows {bridge}' lists them; delete them"
        )
    return Examined(f"flows of {bridge}", Diagnosis.OK, "none of others")


def flags(nic: str) -> dict[str, bool] | None:
    """The offloads of a NIC by name, by the ioctl of ethtool(8) (linux/ethtool.h); None where it does not say."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for name, command, bit in OFFLOADS:
            value = array("I", [command, 0])
            request = struct.pack("16sP", nic.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(link, SIOCETHTOOL, request)
            except OSError:
                return None
            found[name] = bool(value[1] & bit)
    return found


def _offloads(nic: str, found: dict[str, bool] | None) -> Examined:
    """What a NIC does to frames by itself. One that merges them for good cannot forward them to others."""
    subject = f"offloads of {nic}"
    if found is None:
        return Examined(subject, Diagnosis.UNKNOWN, "the NIC does not say", f"'ethtool -k {nic}'")
    if found["lro"]:
        text = "large receive offload is on: it merges frames, which cannot be forwarded any more"
        return Examined(subject, Diagnosis.WRONG, text, f"ethtool -K {nic} lro off, and where the NIC is configured")
    return Examined(subject, Diagnosis.OK, ", ".join(f"{name} {'on' if on else 'off'}" for name, on in found.items()))


def _certificate(path: Path) -> Examined:
    from vnet.controller.pki import certificate_end  # noqa: PLC0415 - loads a library that TLS alone needs

    subject, now = f"certificate {path}", datetime.now(UTC)
    remedy = "is --renew-from given, does the controller answer? 'vnet host invite' there for a new one"
    try:
        found = certificate_end(path, now)
    except (OSError, ValueError) as error:
        return Examined(subject, Diagnosis.WRONG, str(error), remedy)
    text = f"ends in {(found.ends - now).days} days" if found.ends > now else "has ended"
    return Examined(subject, Diagnosis.WRONG if found.problem else Diagnosis.OK, text, remedy if found.problem else "")


def _switch(around: dict[str, Any]) -> Iterator[Examined]:
    from ovsctl.appctl import AppctlError, call_sync, control_socket  # noqa: PLC0415

    try:
        version = call_sync(control_socket(around["ovs_rundir"]), "version").splitlines()[0].rsplit(" ", 1)[-1]
    except AppctlError as error:
        yield Examined("Open vSwitch", Diagnosis.WRONG, str(error), "'systemctl status openvswitch-switch'")
        return
    yield Examined(
        "Open vSwitch", Diagnosis.OK, f"version {version}"
    )  # what it lacks is the agent's problem 'datapath'


def _database(remote: str, identity: dict[str, str] | None) -> Examined:
    """A connection, with TLS where the agent has it: an expired certificate and a wrong clock show here."""
    from ovsctl.ovsdb import BadRemote, Remote, Tls  # noqa: PLC0415

    subject = f"pool database {remote}"
    try:
        to = Remote.parse(remote)
        with (
            socket.socket(socket.AF_UNIX)
            if to.path
            else socket.create_connection((to.host, to.port), TIMEOUT_S) as link
        ):
            link.settimeout(TIMEOUT_S)
            if to.path:
                link.connect(to.path)
            if to.secure and identity is not None:
                tls = Tls(Path(identity["own"]), Path(identity["own"]), Path(identity["ca"])).context()
                with tls.wrap_socket(link) as inside:
                    return Examined(subject, Diagnosis.OK, f"answers by {inside.version()}")
    except ssl.SSLError as error:
        remedy = "compare clocks; 'vnet pki status' on the controller; 'vnet host invite' for a new certificate"
        return Examined(subject, Diagnosis.WRONG, f"TLS fails: {error.reason or error}", remedy)
    except (OSError, BadRemote) as error:
        return Examined(subject, Diagnosis.WRONG, str(error), "is it up, does a firewall block it, is --pool right?")
    return Examined(subject, Diagnosis.OK, "answers")


def _clock() -> Examined:
    """Certificates are for a time, and logs of several hosts are read side by side."""
    try:
        said = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
            capture_output=True, text=True, check=True, timeout=TIMEOUT_S,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return Examined("clock", Diagnosis.UNKNOWN, "there is no systemd here to ask", "compare 'date -u' of the hosts")
    if said == "yes":
        return Examined("clock", Diagnosis.OK, "set by NTP")
    return Examined("clock", Diagnosis.WRONG, "not set by NTP", "apt-get install chrony, or another NTP client")


def _peers(around: dict[str, Any]) -> Iterator[Examined]:
    if around["address"] is None or around["underlay_mtu"] is None:
        return
    probe = partial(_path, around["address"], around["underlay_mtu"], echoed)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        peers = sorted(around["peers"].items())
        for found in pool.map(lambda peer: probe(*peer), peers):
            progress(found.subject)
            yield found


def _path(source: str, mtu: int, answers: Callable[[str, str, int], bool], name: str, address: str) -> Examined:
    """Whether packets of the underlay's MTU pass to a peer and back unfragmented; if not, the largest that do."""
    subject, least = f"path to {name} ({address})", LEAST_MTU[ip_address(address).version]
    if answers(source, address, mtu):
        return Examined(subject, Diagnosis.OK, f"{mtu} bytes pass unfragmented, both ways")
    if not answers(source, address, least):
        return Examined(
            subject,
            Diagnosis.WRONG,
            "does not answer",
            f"is {name} up? 'ping -I {source} {address}'; a firewall, a cable",
        )
    passes, fails = least, mtu
    while fails - passes > 1:
        middle = (passes + fails) // 2
        passes, fails = (middle, fails) if answers(source, address, middle) else (passes, middle)
    remedy = f"raise the MTU of NICs and switches on the way to {mtu}, or state 'underlay: {{mtu: {passes}}}'"
    return Examined(subject, Diagnosis.WRONG, f"{passes} bytes pass, and not the {mtu} of underlay.mtu", remedy)


def echoed(source: str, address: str, size: int) -> bool:
    """Whether an IP packet of that size, which may not be fragmented, comes to an address and back."""
    payload = size - IP_ICMP_BYTES[ip_address(address).version]
    argv = [
        "ping",
        "-n",
        "-q",
        "-c",
        "2",
        "-i",
        "0.2",
        "-W",
        "1",
        "-M",
        "do",
        "-s",
        str(payload),
        "-I",
        source,
        address,
    ]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
