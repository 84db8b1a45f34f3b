"""Mirrors on the twin: one copy of each frame, whatever of its ends a mirror is of, wherever they run and while they move."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.vnet.sim.pools import TWO_HOSTS
from vnet.compile import Category, compile_flows, flat
from vnet.compile.origin import sources_of_vif
from vnet.compile.probe import mark
from vnet.grammar.problems import TopologyErrors
from vnet.sim import SimPool
from vnet.sim.trace import trace_packet
from vnet.topology import load

GUESTS = b"""  ids1: {host: xen2, vifs: [{network: island, addresses: [10.4.0.9]}]}
  ids2: {host: xen1, vifs: [{network: island, addresses: [10.4.0.8]}]}
  trunk1: {host: xen1, vifs: [{network: trunks, trunk: [10, 20], addresses: [], locking-mode: unlocked}]}
  tap1: {host: xen2, vifs: [{network: ten, addresses: [10.6.0.1]}]}
  dark1: {host: xen1, labels: {secret: "yes"}, vifs: [{network: secret, addresses: [10.7.0.1]}]}
  dark2: {host: xen2, vifs: [{network: secret, addresses: [10.7.0.2]}]}
  shop1: {host: xen1, labels: {app: shop}, vifs: [{network: tenant, security-groups: [closed]}]}
mirrors:
"""
MORE = b"""  trunks: {type: vlan, tag: untagged, uplink: trunk0}
  ten: {type: vlan, tag: 10, uplink: trunk0}
  secret: {type: vxlan, encryption: required}
security-groups:
  closed: {default: {ingress: drop, egress: drop}}
  marks: {}
"""
BROADCAST = "ff:ff:ff:ff:ff:ff"


def pool_with(*mirrors: str) -> SimPool:
    text = TWO_HOSTS.replace(b"  island: {type: internal}\n", b"  island: {type: internal}\n" + MORE) + GUESTS
    return SimPool.from_document(load(text + "".join(f"  {mirror}\n" for mirror in mirrors).encode(), "m.vnet.yaml"))


def frame(pool: SimPool, source: str, target: str, payload: Packet | None = None) -> bytes:
    sender, receiver = pool.vif(source), pool.vif(target)
    packet = IP(src=sender.addresses[0], dst=receiver.addresses[0]) / (payload or UDP(sport=9, dport=53))
    return bytes(Ether(src=sender.mac, dst=receiver.mac) / packet / Raw(b"hello"))


def to_all(pool: SimPool, source: str) -> bytes:
    sender = pool.vif(source)
    packet = IP(src=sender.addresses[0], dst="255.255.255.255") / UDP(sport=68, dport=67)
    return bytes(Ether(src=sender.mac, dst=BROADCAST) / packet)


def copies(pool: SimPool, source: str, sent: bytes, target: str = "ids1/0") -> list[bytes]:
    return [item.frame for item in pool.send(source, sent) if item.to == target]


PAIRS = {
    "tenant": ("web1/0", "web2/0", "db1/0"),
    "prod": ("web1/1", "db1/1"),
    "legacy": ("web1/2", "db1/2"),
}


@pytest.mark.parametrize("network", PAIRS)
@pytest.mark.parametrize("direction", ["both", "from-vm", "to-vm"])
@pytest.mark.parametrize("policy", ["before", "after"])
def test_one_copy_of_each_frame(network: str, direction: str, policy: str) -> None:
    vifs = PAIRS[network]
    for chosen in [vifs[:1], vifs[-1:], (vifs[0], vifs[-1]), (f"network:{network}",)]:
        names = ", ".join(chosen)
        pool = pool_with(f"m: {{from: [{names}], direction: {direction}, policy: {policy}, to: ids1/0}}")
        selected = set(vifs) if chosen[0].startswith("network") else set(chosen)
        for source, target in product(vifs, vifs):
            if source == target:
                continue
            sent = frame(pool, source, target)
            wanted = (source in selected and direction != "to-vm") or (target in selected and direction != "from-vm")
            assert copies(pool, source, sent) == [sent] * wanted, (chosen, source, target)


@pytest.mark.parametrize("network", PAIRS)
def test_a_frame_to_many_is_copied_once(network: str) -> None:
    vifs = PAIRS[network]
    pool = pool_with(f"m: {{from: [{{network: {network}}}], to: ids1/0}}", f"n: {{from: [{vifs[-1]}], to: ids2/0}}")
    for source in vifs:
        sent = to_all(pool, source)
        assert copies(pool, source, sent) == [sent]
        assert copies(pool, source, sent, "ids2/0") == [sent]


def test_what_a_station_sends_is_copied_once() -> None:
    pool = pool_with("m: {from: [{network: prod}], to: ids1/0}")
    station, mac = pool.station("trunk0", 120), "0a:00:00:00:77:01"
    for to in (pool.vif("web1/1").mac, pool.vif("db1/1").mac, BROADCAST):
        sent = bytes(Ether(src=mac, dst=to) / IP(src="10.2.0.9", dst="10.2.0.1") / UDP())
        assert [item.frame for item in pool.send(station, sent) if item.to == "ids1/0"] == [sent]


def one_copy(pool: SimPool, pairs: list[tuple[str, str]], target: str, step: str) -> None:
    for a, b in pairs:
        found = [item.to for item in pool.send(a, frame(pool, a, b))]
        assert found.count(target) == found.count(b) == 1, (step, a, b, found)


@pytest.mark.parametrize("network", PAIRS)
@pytest.mark.parametrize(("target", "policy"), [("ids1", "before"), ("ids2", "before"), ("ids1", "after")])
def test_one_copy_while_either_end_or_the_target_moves(network: str, target: str, policy: str) -> None:
    vifs = PAIRS[network]
    for chosen in (vifs[:1], vifs[-1:], (vifs[0], vifs[-1])):
        pool = pool_with(f"m: {{from: [{', '.join(chosen)}], policy: {policy}, to: {target}/0}}")
        pairs = [(a, b) for a, b in product(vifs, vifs) if a != b and {a, b} & set(chosen)]
        check = partial(one_copy, pool, pairs, f"{target}/0")
        check("before")
        for vm in ("web1", "db1", target):
            there = "xen2" if pool.location(vm) == "xen1" else "xen1"
            pool.prepare(vm, there)
            check(f"{vm} prepared")
            pool.run(vm, there, announce=True)
            check(f"{vm} announced")
            pool.activate(vm)
            check(f"{vm} active")
            pool.finish(vm)
            check(f"{vm} finished")


CARRIERS = ("vx", "gre", "gnv", "dark", "vlan")
NICS = ", ".join(f"{{network: {name}, addresses: [10.{nic}.0.%d]}}" for nic, name in enumerate(CARRIERS))
THREE_HOSTS = f"""apiVersion: vnet/v1
pool: three
underlay: {{mtu: 1700}}
hosts:
  xen1: {{address: 10.99.0.1, uplinks: {{trunk0: {{members: [eth1]}}}}}}
  xen2: {{address: 10.99.0.2, uplinks: {{trunk0: {{members: [eth1]}}}}}}
  xen3: {{address: 10.99.0.3, uplinks: {{trunk0: {{members: [eth1]}}}}}}
networks:
  vx: {{type: vxlan}}
  gre: {{type: gre}}
  gnv: {{type: geneve}}
  dark: {{type: vxlan, encryption: required}}
  vlan: {{type: vlan, tag: 120, uplink: trunk0}}
  taps: {{type: internal}}
vms:
  old: {{host: xen1, vifs: [{NICS % ((1,) * 5)}]}}
  new: {{host: xen2, vifs: [{NICS % ((2,) * 5)}]}}
  far: {{host: xen3, vifs: [{NICS % ((3,) * 5)}]}}
  moving: {{host: xen1, vifs: [{NICS % ((9,) * 5)}]}}
  ids: {{host: xen3, vifs: [{{network: taps, addresses: []}}]}}
mirrors:
  late: {{from: [{", ".join(f"moving/{nic}" for nic in range(5))}], direction: to-vm, policy: after, to: ids/0}}
"""


def instants(pool: SimPool, switch: bool) -> Iterator[str]:
    """The instants of a move, of which hosts learn one after the other."""
    pool.prepare("moving", "xen2")
    yield "held"
    if switch:
        pool.switch("moving")
        yield "receiving"
    pool.run("moving", "xen2", announce=True)
    yield "announced, and no agent knows"
    pool.activate("moving")
    yield "active"
    pool.finish("moving")
    yield "finished"


@pytest.mark.parametrize("switch", [False, True])
def test_of_two_frames_for_a_moving_vif_one_is_shown(switch: bool) -> None:
    pool = SimPool.from_document(load(THREE_HOSTS.encode(), "three.vnet.yaml"))
    for instant in instants(pool, switch):
        for nic, sender in product(range(5), ("old", "new", "far")):
            source = f"{sender}/{nic}"
            for sent in (frame(pool, source, f"moving/{nic}"), to_all(pool, source)):
                assert copies(pool, source, sent, "ids/0") == [sent], (instant, source)


def test_groups_and_labels_are_followed() -> None:
    pool = pool_with(
        "m: {from: [{label: app=shop}], to: ids1/0}", "n: {from: [{group: closed}], to: ids2/0, filter: udp port 53}"
    )
    sent = frame(pool, "web1/0", "shop1/0")
    assert copies(pool, "web1/0", sent) == copies(pool, "web1/0", sent, "ids2/0") == [sent]
    assert not copies(pool, "web1/0", frame(pool, "web1/0", "shop1/0", TCP()), "ids2/0")


def test_policy_before_and_after() -> None:
    before = pool_with("m: {from: [shop1/0], to: ids1/0}")
    after = pool_with("m: {from: [shop1/0], to: ids1/0, policy: after}")
    for source, target in (("shop1/0", "web1/0"), ("web1/0", "shop1/0"), ("db1/0", "shop1/0")):
        sent = frame(before, source, target)
        assert copies(before, source, sent) == [sent]
        assert not copies(after, source, sent)


def test_a_filter_decides() -> None:
    pool = pool_with("m: {from: [web1/0], filter: 'tcp port 443 or not ip', to: ids1/0}")
    for payload, wanted in ((TCP(dport=443), True), (TCP(dport=80), False), (UDP(), False)):
        sent = frame(pool, "web1/0", "db1/0", payload)
        assert copies(pool, "web1/0", sent) == [sent] * wanted


def test_a_trunk_keeps_its_tags() -> None:
    pool = pool_with("m: {from: [trunk1/0], to: ids1/0}")
    trunk, tap = pool.vif("trunk1/0"), pool.vif("tap1/0")
    sent = bytes(Ether(src=trunk.mac, dst=tap.mac) / Dot1Q(vlan=10) / IP(src="10.6.0.9", dst="10.6.0.1") / UDP())
    assert copies(pool, "trunk1/0", sent) == [sent]
    answer = bytes(Ether(src=tap.mac, dst=trunk.mac) / IP(src="10.6.0.1", dst="10.6.0.9") / UDP())
    tagged = bytes(Ether(src=tap.mac, dst=trunk.mac) / Dot1Q(vlan=10) / IP(src="10.6.0.1", dst="10.6.0.9") / UDP())
    found = pool.send("tap1/0", answer)
    assert [item.frame for item in found if item.to == "trunk1/0"] == [tagged]
    assert [item.frame for item in found if item.to == "ids1/0"] == [tagged]


def test_a_vlan_for_copies_leads_to_no_vif() -> None:
    pool = pool_with(
        "m: {from: [{network: tenant}], to: {vlan: 99, uplink: trunk0}}", "n: {from: [trunk1/0], to: ids1/0}"
    )
    station = pool.station("trunk0", 99)
    for sent in (frame(pool, "web1/0", "web2/0"), to_all(pool, "web1/0")):
        found = pool.send("web1/0", sent)
        assert [item.frame for item in found if item.to == station.name] == [sent]
        assert {item.to for item in found} <= {station.name, "web2/0", "db1/0", "shop1/0"}


def test_collectors_and_no_copies_of_copies() -> None:
    pool = pool_with(
        "m: {from: [{network: tenant}], to: {erspan: 10.1.0.9, id: 7}}",
        "n: {from: [{network: tenant}], to: {gre: 10.1.0.8, key: 8}}",
    )
    sent = frame(pool, "web1/0", "db1/0")
    found = pool.send("web1/0", sent)
    assert [i.frame for i in found if i.to.startswith("erspan")] == [i.frame for i in found if i.to[:3] == "gre"]
    carrying = bytes(
        Ether(src=pool.vif("web1/0").mac, dst=pool.vif("db1/0").mac)
        / IP(src=pool.vif("web1/0").addresses[0], dst="10.1.0.8", proto=47) / Raw(sent)
    )  # fmt: skip
    assert [item.to for item in pool.send("web1/0", carrying)] == ["db1/0"]


def test_frames_of_an_encrypted_network_go_encrypted() -> None:
    pool = pool_with("m: {from: [{network: secret}, web1/0], to: ids1/0}")
    for source, target, encrypted in (("dark1/0", "dark2/0", True), ("web1/0", "web2/0", False)):
        sent = frame(pool, source, target)
        (copy,) = [item for item in pool.send(source, sent) if item.to == "ids1/0"]
        assert copy.frame == sent
        assert any("(encrypted)" in place for place in copy.path) is encrypted


def test_no_copy_of_a_probes_frame() -> None:
    pool = pool_with("m: {from: [web1/0], to: ids1/0}")
    sent = mark(frame(pool, "web1/0", "web2/0"), 7)
    host = pool.host("xen1")
    host.view._inputs.set_probe("probe", [sent])
    host.bridge.replace_flows(lambda: flat(compile_flows(host.view)))
    assert not pool.send("web1/0", sent).items
    assert len(copies(pool, "web1/0", frame(pool, "web1/0", "web2/0"))) == 1


def test_a_target_gets_no_frames_of_its_own() -> None:
    pool = pool_with("m: {from: [{network: tenant}], to: web2/0}")
    assert len(copies(pool, "web2/0", frame(pool, "web2/0", "web1/0"), "web2/0")) == 0
    assert len(copies(pool, "web1/0", frame(pool, "web1/0", "web2/0"), "web2/0")) == 2  # its own, and the sender's copy


def test_a_trace_says_where_copies_go() -> None:
    pool = pool_with("m: {from: [web1/0], to: ids1/0}")
    passed = trace_packet(pool, "web1/0", frame(pool, "web1/0", "db1/0"))
    assert passed.verdict == "delivered to db1/0; mirrored to ids1/0 by mirror m"
    forged = bytes(Ether(src="0a:00:00:00:00:99", dst=pool.vif("db1/0").mac) / Raw(b"x" * 50))
    dropped = trace_packet(pool, "web1/0", forged).verdict
    assert dropped.startswith("dropped by xen1 br-int in GUARD")
    assert dropped.endswith("mirrored to ids1/0 by mirror m")


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ("m: {from: [web9/0], to: ids1/0}", "unknown VIF 'web9/0'"),
        ("m: {from: [{group: nobody}], to: ids1/0}", "unknown security group 'nobody'"),
        ("m: {from: [web1/0], to: ids9/0}", "unknown VIF 'ids9/0'"),
        ("m: {from: [web1/0], to: {vlan: 120, uplink: trunk0}}", "network prod's and mirror m's"),
        ("m: {from: [web1/0], to: {vlan: 20, uplink: trunk0}}", "trunk VIF trunk1/0 carries tag 20"),
        ("m: {from: [web1/0], to: {vlan: 99, uplink: trunk9}}", "unknown uplink 'trunk9'"),
        ("m: {from: [web1/0], to: {erspan: 10.0.0.9}}", "'erspan' needs 'id'"),
        ("m: {from: [web1/0], to: {erspan: 10.0.0.9, id: 5000}}", "id 5000 is outside 0..1023"),
        ("m: {from: [{network: secret}], to: {gre: 10.0.0.9, key: 1}}", "encrypted, to gre 10.0.0.9 key 1 in clear"),
        (
            "m: {from: [{label: secret=yes}], to: {gre: 10.0.0.9, key: 1}}",
            "VIF dark1/0, whose network secret is encrypted",
        ),
        ("m: {from: [web1/0], to: ids1/0, filter: tcp port http}", "filter: wanted a number"),
        ("m: {from: [web1/0], to: web1/0}", "cannot get copies of its own frames"),
        ("m: {from: [web1/0], to: ids1/0, expires: tomorrow}", "'tomorrow' is no moment"),
    ],
)
def test_refused(mirror: str, message: str) -> None:
    with pytest.raises(TopologyErrors) as refused:
        pool_with(mirror)
    assert message in str(refused.value)


def test_each_host_needs_a_way_to_the_target() -> None:
    text = b"""apiVersion: vnet/v1
pool: few
hosts: {xen1: {address: 10.99.0.1}, xen2: {}}
networks: {lan: {type: internal}}
vms: {a: {vifs: [{network: lan}]}, b: {vifs: [{network: lan}]}}
mirrors: {m: {from: [a/0], to: b/0}}
"""
    with pytest.raises(TopologyErrors, match="host xen2 has no tunnel address, by which copies of mirror m"):
        SimPool.from_document(load(text, "few.vnet.yaml"))
    assert SimPool.from_document(load(text.replace(b", xen2: {}", b""), "one.vnet.yaml"))


def test_flows_of_a_vif_are_found() -> None:
    pool = pool_with("m: {from: [web1/0], filter: tcp, to: ids1/0}", "n: {from: [db1/0], to: ids2/0}")
    for host, vif, mirror in (("xen1", "web1/0", "m"), ("xen1", "ids2/0", "n"), ("xen2", "ids1/0", "m")):
        there = pool.host(host)
        found = [*sources_of_vif(there.view, there.compiled, there.view.vifs[pool.vif(vif).id])]
        assert [it.name for it in found if it.category is Category.MIRROR] == [mirror]
        assert [it.name for it in found if it.category is Category.MIRRORED] == ([vif] if vif == "web1/0" else [])


def test_the_caret_is_under_the_source_that_is_not_there() -> None:
    with pytest.raises(TopologyErrors) as refused:
        pool_with("m: {from: [web1/0, {group: nobody}], to: ids1/0}")
    line, carets = str(refused.value).splitlines()[1:3]
    assert line[carets.index("^") :].startswith("{group: nobody}")


def test_the_caret_is_under_the_wrong_word_of_a_filter() -> None:
    with pytest.raises(TopologyErrors) as refused:
        pool_with("m: {from: [web1/0], to: ids1/0, filter: tcp port http}")
    line, carets = str(refused.value).splitlines()[1:3]
    assert line[carets.index("^") : carets.index("^") + carets.count("^")] == "http"
