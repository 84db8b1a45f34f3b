"""The devices and routes of encrypted tunnels on a host, kept as they must be.

    host's namespace                                               a namespace of its own
    br-int - tunnel port ...> vnet-encrypted - vnet-wireguard ------ host   plane 0, plane 1 (WireGuard)
                              (addresses inside WireGuard)                     |
    NIC <--------------------------------------------------------- UDP sockets, of the host's namespace

One rule: the namespace has no way out but WireGuard, and packets with the mark have no way but into the namespace. So what cannot be
encrypted is dropped. Packets are routed by the kernel, with its own datapath, or by Open vSwitch's userspace datapath: both have the routes.
A kernel takes a packet for one of its addresses from any device. Where it ends tunnels a rule of nftables drops what has not come by the bridge.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ovsctl.appctl import Appctl, AppctlError, control_socket
from vnet.objects.devices import ENCRYPTION_BRIDGE, WIREGUARD_LINK
from vnet.objects.encryption import ENCRYPTED_MARK, FIRST_PORT, PLANES
from vnet.util.commands import TIMEOUT_S, ToolFailed, run
from vnet.wireguard.exchange import WireguardOrder

FILTER = "vnet-encryption"
NETNS_DIR = Path("/run/netns")
SOCKET_DIR = Path("/var/run/wireguard")  # of devices that are processes
# nft(8): a file is one transaction. What a host sends to itself comes by lo.
ONLY_BY_BRIDGE = f"""
table ip6 {FILTER}
delete table ip6 {FILTER}
table ip6 {FILTER} {{
    chain prerouting {{
        type filter hook prerouting priority raw;
        iifname != {{ "{ENCRYPTION_BRIDGE}", "lo" }} ip6 daddr {{ %s }} drop
    }}
}}
"""
TABLE = str(ENCRYPTED_MARK)  # of the routes of packets with the mark
LAST_METRIC = str(2**32 - 1)
GATEWAY = "fe80::1"  # the namespace, as its host reaches it
FAR = "host"  # the namespace's end of the link
KEEPALIVE_S = 25  # as wg(8) proposes
USERSPACE = "wireguard-go"
FAILED = re.compile(r"Command failed -:(\d+)")  # of `ip -batch -`
WORDS_AT_ONCE = 8 * 1000  # of a command: eight for each peer


class PlanePeer(NamedTuple):
    """Another host in one plane: its public key, its address on the underlay, and the one inside WireGuard."""

    public: str
    endpoint: str
    address: str


class EncryptionLink:
    """netns: the name of the devices' namespace. prefix: of the WireGuard devices' names."""

    def __init__(self, netns: str, prefix: str, ovs_rundir: str) -> None:
        self._netns = netns
        self._prefix = prefix
        self._rundir = ovs_rundir

    def _device(self, plane: int) -> str:
        return f"{self._prefix}{plane}"

    def _inside(self, *args: str) -> tuple[str, ...]:
        return "nsenter", f"--net={NETNS_DIR / self._netns}", *args  # `ip netns exec` would mount /sys anew, too

    @property
    def userspace(self) -> bool:
        """Whether WireGuard is a process here."""
        return any((SOCKET_DIR / f"{self._device(plane)}.sock").exists() for plane in PLANES)

    # The way in

    def close(self, wanted: WireguardOrder) -> None:
        """Has packets with the mark go nowhere but where `open` sends them, and a kernel that ends tunnels take none but from there. Raises ToolFailed."""
        if wanted.kernel:
            run("nft", "-f", "-", stdin=ONLY_BY_BRIDGE % ", ".join(wanted.networks.values()))
            _ip(*(f"route replace unreachable {net} metric {LAST_METRIC}" for net in wanted.networks.values()))
        rules = _ip(f"route replace unreachable default metric {LAST_METRIC} table {TABLE}", "rule show")
        if f"lookup {TABLE}" not in rules:
            _ip(f"rule add fwmark {ENCRYPTED_MARK} lookup {TABLE}")

    def open(self, wanted: WireguardOrder, mac: str) -> bool:
        """Gives the bridge the host's addresses, and routes packets with the mark to it. False while it is not there. Raises ToolFailed, OSError."""
        found = devices().get(ENCRYPTION_BRIDGE)
        if found is None or found.get("address") != mac:
            return False
        gateway: str = devices(self._netns)[FAR]["address"]
        _set(ENCRYPTION_BRIDGE, "disable_ipv6", "0")
        _set(ENCRYPTION_BRIDGE, "accept_ra", "0")
        commands = [
            f"link set {ENCRYPTION_BRIDGE} mtu {wanted.mtu} up",
            f"neigh replace {GATEWAY} lladdr {gateway} dev {ENCRYPTION_BRIDGE} nud permanent",
        ]
        for plane in PLANES:
            own = wanted.addresses[plane]
            way = f"via {GATEWAY} dev {ENCRYPTION_BRIDGE} src {own}"
            commands.append(f"address replace {own}/64 dev {ENCRYPTION_BRIDGE} nodad")
            commands.append(f"route replace {wanted.networks[plane]} {way} table {TABLE}")
            if wanted.kernel:  # its GRE over IPv6 forgets the mark (ip6_gre.c, __gre6_xmit)
                commands.append(f"route replace {wanted.networks[plane]} {way} metric 1")
        _ip(*commands)
        return self._open_in_switch(wanted, gateway)

    def _open_in_switch(self, wanted: WireguardOrder, gateway: str) -> bool:
        """The same routes in Open vSwitch, for its userspace datapath. It refuses until it has heard of the addresses."""
        try:
            self._appctl("tnl/neigh/set", ENCRYPTION_BRIDGE, GATEWAY, gateway)
            routes = self._appctl("ovs/route/show")
            for plane in PLANES:
                network, own = wanted.networks[plane], wanted.addresses[plane]
                known = f"User: {network} MARK {ENCRYPTED_MARK} dev {ENCRYPTION_BRIDGE} GW {GATEWAY} SRC {own}"
                if known not in routes:
                    self._appctl("ovs/route/add", network, ENCRYPTION_BRIDGE, GATEWAY, f"pkt_mark={ENCRYPTED_MARK}")
        except AppctlError:
            return False
        return True

    def _appctl(self, *command: str) -> str:
        return asyncio.run(Appctl(control_socket(self._rundir), TIMEOUT_S).call(*command))

    # The namespace

    def make(self, wanted: WireguardOrder, mac: str) -> bool:
        """Makes the namespace, its devices and its routes, where they are not there. Whether any device is new. Raises ToolFailed, OSError."""
        if not (NETNS_DIR / self._netns).exists():
            run("ip", "netns", "add", self._netns)
            for setting in ("disable_ipv6", "forwarding"):
                value = int(setting == "forwarding")
                run(*self._inside("sh", "-c", f"echo {value} > /proc/sys/net/ipv6/conf/all/{setting}"))
        there = devices(self._netns)
        lacking = [plane for plane in PLANES if self._device(plane) not in there]
        for plane in lacking:
            self._make_device(self._device(plane))
        if FAR not in there:
            run("ip", "link", "del", WIREGUARD_LINK, fine=True)
            run("ip", "link", "add", WIREGUARD_LINK, "type", "veth", "peer", "name", FAR, "netns", self._netns)
            _set(WIREGUARD_LINK, "disable_ipv6", "1")
        _ip(f"link set {WIREGUARD_LINK} mtu {wanted.mtu} up")
        commands = [f"link set {device} mtu {wanted.mtu} up" for device in (FAR, *map(self._device, PLANES))]
        commands.append(f"address replace {GATEWAY}/64 dev {FAR} nodad")
        for plane in PLANES:
            own = wanted.addresses[plane]
            commands.append(f"route replace {wanted.networks[plane]} dev {self._device(plane)}")
            commands.append(f"route replace {own}/128 dev {FAR}")
            commands.append(f"neigh replace {own} lladdr {mac} dev {FAR} nud permanent")
        _ip(*commands, netns=self._netns)
        return bool(lacking)

    def _make_device(self, name: str) -> None:
        """A WireGuard device whose packets leave by the host's namespace, where it is made, whatever namespace it is in later."""
        if name not in devices():
            try:
                run("ip", "link", "add", name, "type", "wireguard")
            except ToolFailed as error:
                _make_in_userspace(name, str(error))
        run("ip", "link", "set", name, "netns", self._netns)

    # WireGuard

    def configure(self, plane: int, private: str, peers: Iterable[PlanePeer]) -> None:
        """Sets a device's key and peers. What is as it must be is not touched: setting it again may lose a packet. Peers begin anew under another key.
        Raises ToolFailed."""
        device, dump = self._device(plane), self._dump(plane)
        own, port = dump[0][0], dump[0][2]
        wanted = {peer.public: peer for peer in peers}
        there = {public: (endpoint, allowed) for public, _, endpoint, allowed, *_ in dump[1:]}
        gone = [public for public in there if public not in wanted or own != private]
        if gone:
            run(*self._inside("wg", "set", device, *(word for public in gone for word in ("peer", public, "remove"))))
        if own != private:
            run(*self._inside("wg", "set", device, "private-key", "/dev/stdin"), stdin=private)
        if port != str(FIRST_PORT + plane):
            run(*self._inside("wg", "set", device, "listen-port", str(FIRST_PORT + plane)))
        words: list[str] = []
        for public, peer in sorted(wanted.items()):
            at = f"[{peer.endpoint}]" if ":" in peer.endpoint else peer.endpoint
            as_wanted = f"{at}:{FIRST_PORT + plane}", f"{peer.address}/128"
            if public in gone or there.get(public) != as_wanted:
                # Both sides call at once when they learn of each other, so the one that learns last is heard.
                words += ["peer", public, "endpoint", as_wanted[0], "allowed-ips", as_wanted[1]]
                words += ["persistent-keepalive", str(KEEPALIVE_S)]
        for first in range(0, len(words), WORDS_AT_ONCE):
            run(*self._inside("wg", "set", device, *words[first : first + WORDS_AT_ONCE]))

    def _dump(self, plane: int) -> list[list[str]]:
        """The device's own line, and one for each peer (wg(8), show)."""
        return [line.split("\t") for line in run(*self._inside("wg", "show", self._device(plane), "dump")).splitlines()]

    def counters(self, plane: int) -> dict[str, tuple[int, int]]:
        """By public key of a peer: the time of its last handshake, 0 for none, and the bytes that were received. Raises ToolFailed."""
        return {
            public: (int(handshake), int(received))
            for public, _, _, _, handshake, received, *_ in self._dump(plane)[1:]
        }


def _ip(*commands: str, netns: str | None = None) -> str:
    """The output of commands of `ip -6`, carried out one after the other by one process. Raises ToolFailed, which names the one that failed."""
    of = ("-n", netns) if netns is not None else ()
    try:
        return run("ip", *of, "-6", "-batch", "-", stdin="\n".join(commands) + "\n")
    except ToolFailed as error:
        if (failed := FAILED.search(str(error))) is None:
            raise
        why = str(error)[: failed.start()].strip().partition(": ")[2]
        raise ToolFailed(f"ip {' '.join((*of, commands[int(failed[1]) - 1]))}: {why}") from None


def devices(netns: str | None = None) -> dict[str, dict[str, Any]]:
    """The devices of a namespace, or of the own one, by name, as `ip -j link` has them. Raises ToolFailed."""
    of = ("-n", netns) if netns is not None else ()
    found = json.loads(run("ip", "-j", *of, "link", "show") or "[]")
    return {entry["ifname"]: entry for entry in found}


def _make_in_userspace(name: str, reason: str) -> None:
    if shutil.which(USERSPACE) is None:
        raise ToolFailed(f"no WireGuard here: {reason}; modprobe wireguard, or apt-get install {USERSPACE}")
    env = {**os.environ, "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"}
    # It puts itself into the background.
    done = subprocess.run([USERSPACE, name], env=env, capture_output=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise ToolFailed(f"{USERSPACE} {name}: {done.stderr.decode(errors='replace').strip()[-200:]}")


def _set(device: str, setting: str, value: str) -> None:
    Path(f"/proc/sys/net/ipv6/conf/{device}/{setting}").write_text(value)
