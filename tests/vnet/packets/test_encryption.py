"""Networks whose tunnels are encrypted: what of their frames is to be read between hosts, whatever happens to keys, hosts and processes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_network

import pytest
from click.testing import CliRunner
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.sendrecv import sendp

from ovsctl.ovsdb import Delete, Operation, OvsdbClient, Select, Update
from tests.conftest import FAILED
from tests.labs import SharedLab, new_name
from tests.polling import wait_until
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.pools import HOSTS, NETWORKS
from tests.vnet.wiretap import wiretap
from vnet.agent.encryption import SETTLED_S
from vnet.cli.main import cli
from vnet.client import Client
from vnet.db.rows import SCHEMA_NAME, from_row
from vnet.lab import Driver, Lab
from vnet.lab.daemons import call_async, wireguard_of
from vnet.lab.errors import CommandFailed
from vnet.lab.links import within
from vnet.lab.names import host_mac, host_netns, underlay_netns
from vnet.lab.processes import command_of, inside, stop
from vnet.lab.streams import RunningStream
from vnet.lab.switchd import Switchd
from vnet.objects import Encryption, Pool, PoolState, TunnelKey, Vif, Vm
from vnet.objects.devices import ENCRYPTION_BRIDGE
from vnet.objects.encryption import ENCRYPTED_MARK, PLANES
from vnet.wireguard.exchange import REPORT, WANTED
from vnet.wireguard.link import FILTER, TABLE

pytestmark = pytest.mark.usefixtures("netns")
A, B, C = HOSTS
PERIOD_MS = 5
OTHERS = ("gre", "gnv")
PATHS = [(A, B), (B, C), (C, A)]


def pool() -> PoolState:
    """A VIF on each host of an encrypted network; and of one of each other type of tunnel, on two hosts."""
    places = [("vx", A), ("vx", B), ("vx", C), *((name, host) for name in OTHERS for host in (A, B))]
    vifs = [
        Vif(f"{vm}/0", name, f"0a:5e:c4:e7:00:{n:02x}", vm=vm, host=host, addresses=(f"10.1.0.{n}",))
        for n, (name, host) in enumerate(places, 1)
        if (vm := host if name == "vx" else f"{name}-{host}")
    ]
    networks = {
        name: replace(NETWORKS[name], encryption=Encryption.REQUIRED, mtu=1400, hosts=frozenset())
        for name in ("vx", *OTHERS)
    }
    vms = {vif.vm: Vm(vif.vm, vif.host) for vif in vifs if vif.vm}
    return PoolState(Pool("encrypted", underlay_mtu=1600), HOSTS, networks, {}, vms, {vif.id: vif for vif in vifs})


SECRETS = [bytes.fromhex("0a5ec4e7")]  # the MACs of its VIFs


def latest_handshake(lab: Lab) -> int:
    """When any two hosts last agreed, in seconds since 1970."""
    reports = (json.loads((lab.daemons.wireguard_dir(host) / REPORT).read_text()) for host in HOSTS)
    return max(when for report in reports for when in report["handshakes"].values())


def build() -> Lab:
    """The lab with its VMs started, and asked to send before anything is set up."""
    lab = Lab.up(pool(), name=new_name(), driver=Driver.NETNS, daemons=True)
    try:
        with wiretap(lab, SECRETS) as tap:
            lab.start_all()
            # The first sessions give way to others: what is lost then is no fault, what is in clear is.
            with streams(lab):
                pass
            wait_until(lambda: time.time() - latest_handshake(lab) > SETTLED_S + 1, "nobody calls any more")
        assert tap.clear == []
    except BaseException:
        lab.down()
        raise
    return lab


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedLab]:
    made = SharedLab(build)
    yield made
    made.down()


@pytest.fixture
def lab(shared: SharedLab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab on whose links nothing of a VIF's frame was to be read while the test ran."""
    with shared.lent() as lent, wiretap(lent, SECRETS) as tap:
        yield lent
    if request.node.stash[FAILED]:
        shared.down()  # it may be as the test left it
        return
    assert tap.clear == []
    assert tap.frames["wireguard"] > 0


Running = dict[tuple[str, str], tuple[RunningStream, str]]


@contextmanager
def streams(lab: Lab) -> Iterator[Running]:
    """Streams from each host to the next, under way; with who receives."""
    with ExitStack() as stack:
        running = {
            (s, t): (stack.enter_context(lab.stream(f"{s}/0", f"{t}/0", period_ms=PERIOD_MS)), f"{t}/0")
            for s, t in PATHS
        }
        go_on(running)
        yield running
        wait_sent(running, go_on(running))


def check_whole(running: Running) -> None:
    for (source, to), (stream, receiver) in running.items():
        got = stream.report.at(receiver)
        assert (got.lost, got.duplicated) == (0, 0), f"{source} to {to}: {got.lost_numbers[:5]}"


def vnet(lab: Lab, *args: str) -> str:
    """The output of a `vnet` command, which succeeds."""
    done = CliRunner().invoke(cli, ["--controller", lab.daemons.env["VNET_CONTROLLER"], *args])
    assert done.exit_code == 0, done.output
    return done.stdout


def transact(lab: Lab, *operations: Operation) -> None:
    async def work() -> None:
        async with OvsdbClient([f"unix:{lab.daemons.pool_socket}"], SCHEMA_NAME) as client:
            await client.transact(*operations)

    call_async(work)


def keys(lab: Lab) -> dict[tuple[str, int], TunnelKey]:
    async def work() -> dict[tuple[str, int], TunnelKey]:
        async with OvsdbClient([f"unix:{lab.daemons.pool_socket}"], SCHEMA_NAME) as client:
            (rows,) = await client.transact(Select("TunnelKey"))
            found = [from_row(TunnelKey, row) for row in rows]
            return {(key.host, key.plane): key for key in found}

    return call_async(work)


def planes(lab: Lab) -> set[int]:
    """The planes that frames take, on any host to any other."""
    orders = (json.loads((lab.daemons.wireguard_dir(host) / WANTED).read_text()) for host in HOSTS)
    return {plane for order in orders for plane in order["sending"].values()}


def test_keys_are_replaced_without_losing_a_frame(lab: Lab) -> None:
    before = keys(lab)
    assert before.keys() == {(host, plane) for host in HOSTS for plane in PLANES}
    # WireGuard agrees anew every two minutes, and for two seconds frames take the other plane then.
    first = max(key.epoch for key in before.values())
    wait_until(lambda: planes(lab) == {first % 2}, f"plane {first % 2} in use")
    with Client(f"unix:{lab.daemons.controller_socket}") as api, streams(lab) as running:
        for epoch in (first + 1, first + 2):
            assert api.rekey().key_epoch == epoch
            wait_until(lambda plane=epoch % 2: planes(lab) == {plane}, f"plane {epoch % 2} in use")  # type: ignore[misc]
            after = keys(lab)
            for (host, plane), key in after.items():
                fresh = plane == epoch % 2
                assert (key != before[host, plane], key.epoch == epoch) == (fresh, fresh), (host, plane)
            before = after
            go_on(running)
            live = json.loads(vnet(lab, "trace", f"{A}/0", f"{B}/0", "--live", "--output", "json"))
            assert (live["reached"], live["twin"]["agrees"], live["differences"]) == (True, True, [])
    check_whole(running)
    files = [path for host in HOSTS for path in (lab.daemons.wireguard_dir(host) / "keys").iterdir()]
    files += [lab.daemons.wireguard_dir(host) / REPORT for host in HOSTS]  # the bridge's MAC is a secret
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.parametrize("part", ["agent", "service"])
def test_what_only_keeps_wireguard_costs_no_frame(lab: Lab, part: str) -> None:
    with streams(lab) as running:
        if part == "agent":
            lab.restart_agent(B)
        else:
            lab.daemons.kill(wireguard_of(B))
            lab.daemons.start_wireguard(B, lab.ovs(B))
        go_on(running)
        lab.daemons.settle()
    check_whole(running)


def between(source: Vif, to: Vif, size: int = 100) -> bytes:
    header = Ether(src=source.mac, dst=to.mac) / IP(src=source.addresses[0], dst=to.addresses[0]) / UDP()
    return bytes(header / (b"x" * (size - len(header))))


@pytest.mark.parametrize("name", OTHERS)
def test_every_type_of_tunnel_is_encrypted(lab: Lab, name: str) -> None:
    source, to = (pool().vifs[f"{name}-{host}/0"] for host in (A, B))
    full = between(source, to, 1400 + 14)
    assert lab.send(source.id, full).at(to.id) == [full]


def userspace(lab: Lab, host: str) -> set[int]:
    """The processes that are a host's WireGuard devices."""
    return {pid for pid in inside([host_netns(lab.spec.name, host)]) if command_of(pid).startswith("wireguard")}


def test_a_switch_wireguard_or_host_that_ends_comes_back_and_lets_nothing_out(lab: Lab) -> None:
    with streams(lab) as running:
        lab.restart_vswitchd(B)
        go_on(running)
        before = userspace(lab, C)
        assert len(before) == len(PLANES)
        stop(before)
        wait_until(lambda: len(userspace(lab, C)) == len(PLANES), "WireGuard is there again")
        go_on(running)
        lab.crash_host(C)
        lab.boot_host(C)
        go_on(running)


def test_a_vm_migrates_without_losing_a_frame(lab: Lab) -> None:
    with streams(lab) as running:
        lab.migrate(A, B)
        go_on(running)
        lab.migrate(A, A)
    check_whole(running)


@pytest.mark.parametrize("how", ["no key", "another key"])
def test_a_host_without_the_key_gets_nothing(lab: Lab, how: str) -> None:
    """Its agent is away, else it would put its rows right."""
    lab.daemons.kill(C)
    of_c = (("host", "==", C),)
    transact(
        lab, Delete("TunnelKey", of_c) if how == "no key" else Update("TunnelKey", of_c, {"public": "A" * 43 + "="})
    )
    text = "no key yet" if how == "no key" else "no answer"
    expected = f"encrypted frames do not reach every host: {text} of {C}"
    lab.daemons.wait(lambda view: view.state.agents[A].problems.get("encryption") == expected, expected)
    source, to = (pool().vifs[f"{host}/0"] for host in (A, C))
    frame = between(source, to)
    # The agent orders, and the host's WireGuard service follows.
    wait_until(lambda: lab.send(source.id, frame).to == [], "WireGuard has the keys of the pool")
    assert lab.send(source.id, [frame] * 3).to == []
    broadcast = bytes(
        Ether(src=source.mac, dst="ff:ff:ff:ff:ff:ff") / IP(src=source.addresses[0], dst="10.1.0.255") / UDP() / b"x"
    )
    assert lab.send(source.id, broadcast).to == [f"{B}/0"]
    lab.daemons.start_agent(C, lab.ovs(C))
    lab.daemons.wait(lambda view: not view.state.agents[A].problems, "nothing is wrong")
    wait_until(lambda: lab.send(source.id, frame).to == [to.id], "frames reach it")


def without_routes_in_the_kernel(lab: Lab) -> None:
    """As in Open vSwitch. GRE over IPv6 has no mark there, and a route of its own."""
    lab.daemons.kill(wireguard_of(A))  # it would put the routes back
    ends = [[pool().vifs[f"{name}{host}/0"] for host in (A, B)] for name in ("", "gre-")]
    sysctl, gateway = "/proc/sys/net/ipv6/conf/br-phy/disable_ipv6", "fd00:99::2"
    orders = json.loads((lab.daemons.wireguard_dir(A) / WANTED).read_text())
    lab.run_on_host(A, "sh", "-c", f"echo 0 > {sysctl}")
    ip = ("ip", "-6")
    lab.run_on_host(A, *ip, "address", "add", "fd00:99::1/64", "dev", "br-phy", "nodad")
    lab.run_on_host(A, *ip, "neigh", "replace", gateway, "lladdr", host_mac(1), "dev", "br-phy", "nud", "permanent")
    lab.run_on_host(A, *ip, "route", "add", "default", "via", gateway, "dev", "br-phy")
    for network in orders["networks"].values():
        for of in (("table", TABLE), ("metric", "1"), ("metric", "256")):
            lab.run_on_host(A, *ip, "route", "del", network, "dev", ENCRYPTION_BRIDGE, *of)
    for source, to in ends:
        assert lab.send(source.id, [between(source, to)] * 3).to == []
    lab.run_on_host(A, *ip, "route", "del", "default")
    lab.run_on_host(A, "sh", "-c", f"echo 1 > {sysctl}")
    lab.daemons.start_wireguard(A, lab.ovs(A))
    for source, to in ends:
        frame = between(source, to)
        wait_until(
            lambda source=source, frame=frame, to=to: lab.send(source.id, frame).to == [to.id], "frames reach it"
        )  # type: ignore[misc]


def default_route(switch: Switchd, gateway: str) -> bool:
    try:
        switch.appctl("ovs/route/add", "::/0", "br-phy", gateway)
    except CommandFailed:
        return False
    return True


def test_without_its_route_the_switch_drops_what_is_to_be_encrypted(lab: Lab) -> None:
    """A default route would take it, but for the mark."""
    source, to = (pool().vifs[f"{host}/0"] for host in (A, B))
    frame = between(source, to)
    wait_until(lambda: lab.send(source.id, frame).to == [to.id], "frames reach it")
    if lab.spec.datapath_type == "system":
        without_routes_in_the_kernel(lab)
        return
    lab.daemons.kill(wireguard_of(A))  # it would put the routes back
    sysctl, gateway = "/proc/sys/net/ipv6/conf/br-phy/disable_ipv6", "fd00:99::2"
    lab.run_on_host(A, "sh", "-c", f"echo 0 > {sysctl}")
    lab.run_on_host(A, "ip", "-6", "address", "add", "fd00:99::1/64", "dev", "br-phy", "nodad")
    switch = lab.ovs(A)
    wait_until(lambda: default_route(switch, gateway), "the address in ovs-vswitchd")
    switch.appctl("tnl/neigh/set", "br-phy", gateway, host_mac(1))
    orders = json.loads((lab.daemons.wireguard_dir(A) / WANTED).read_text())
    for network in orders["networks"].values():
        switch.appctl("ovs/route/del", network, f"pkt_mark={ENCRYPTED_MARK}")
    lookup = switch.appctl("ovs/route/lookup", str(ip_network(network)[1]))
    assert gateway in lookup, "without the mark it would leave by the default route"
    assert lab.send(source.id, [frame] * 3).to == []
    switch.appctl("ovs/route/del", "::/0")
    lab.run_on_host(A, "sh", "-c", f"echo 1 > {sysctl}")
    lab.daemons.start_wireguard(A, switch)
    wait_until(lambda: lab.send(source.id, frame).to == [to.id], "frames reach it")


FORGED = 200  # frames, of each sort; the guests of the lab say less of their own meanwhile


def test_what_a_neighbour_of_the_underlay_forges_is_no_tunnels(shared: SharedLab) -> None:
    """It knows all that is in the pool: addresses inside WireGuard, key, MACs. The MAC of the host's bridge it does not know."""
    source, to = (pool().vifs[f"{host}/0"] for host in (A, B))
    with shared.lent() as lab:
        orders = {host: json.loads((lab.daemons.wireguard_dir(host) / WANTED).read_text()) for host in (A, B)}
        inner, outer = (orders[host]["addresses"]["0"] for host in (A, B))
        tunnel = IPv6(src=inner, dst=outer) / UDP(sport=4242, dport=4789) / VXLAN(vni=5001, flags="Instance")
        switch = lab.ovs(B)

        def forge(*macs: str) -> None:
            frames = [bytes(Ether(src=host_mac(0), dst=mac) / tunnel / Ether(between(source, to))) for mac in macs]
            within(
                underlay_netns(lab.spec.name),
                lambda: [sendp([frame] * FORGED, iface="u1", verbose=False) for frame in frames],
            )

        def taken() -> int:
            """The frames that the host has taken from tunnels."""
            switch.appctl("revalidator/wait")
            lines = switch.ofctl("dump-flows", "br-int", "table=0,tun_id=5001").splitlines()
            return sum(int(found[1]) for line in lines if (found := re.search(r"n_packets=(\d+)", line)))

        if lab.spec.datapath_type == "system":
            lab.daemons.kill(wireguard_of(B))  # it would put the rule back
            sysctl = "/proc/sys/net/ipv6/conf/br-phy/disable_ipv6"
            lab.run_on_host(B, "sh", "-c", f"echo 0 > {sysctl}")
            before, frame = taken(), between(source, to)
            forge("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", host_mac(1))
            assert lab.send(source.id, frame).at(to.id) == [frame]
            assert taken() - before < FORGED / 2
            lab.run_on_host(B, "nft", "delete", "table", "ip6", FILTER)
            forge(host_mac(1))
            wait_until(lambda: taken() - before >= FORGED, "without the rule it would")
            lab.run_on_host(B, "sh", "-c", f"echo 1 > {sysctl}")
            lab.daemons.start_wireguard(B, switch)
            return
        secret = switch.vsctl("get", "interface", "vnet-encrypted", "mac_in_use").strip().strip('"')
        before = taken()
        forge(host_mac(1), "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", secret)
        # Frames to the right MAC come last, and they are taken: so the others have been there by then.
        wait_until(lambda: taken() - before >= FORGED, "with it, it would")
        assert taken() - before < FORGED * 3 / 2
