"""Who is at fault, by what all hosts state."""

from __future__ import annotations

from itertools import permutations

from vnet.db.health import HostHealth, StatedTunnel
from vnet.db.view import PoolView
from vnet.health.findings import by_subject, findings, health_events
from vnet.objects import AgentStatus, Binding, Host, Network, NetworkType, Pool, PoolState, Vif

HOSTS = ("xen1", "xen2", "xen3", "xen4")


def view() -> PoolView:
    vifs = {f"v{name}": Vif(f"v{name}", "tenant", f"0a:00:00:00:00:0{name[-1]}") for name in HOSTS}
    bindings = {(vif.id, vif.id[1:]): Binding(vif.id, vif.id[1:], "tenant", vif.mac, 1) for vif in vifs.values()}
    state = PoolState(
        pool=Pool("p", 1600),
        hosts={name: Host(name, f"10.0.0.{name[-1]}") for name in HOSTS},
        networks={"tenant": Network("tenant", NetworkType.VXLAN, 1, 1550, key=7)},
        vifs=vifs,
        bindings=bindings,
        agents={name: AgentStatus(name) for name in HOSTS},
    )
    return PoolView.of(state, HOSTS)


def stating(*lost: tuple[str, str], **others: tuple[StatedTunnel, ...]) -> dict[str, HostHealth]:
    """What hosts state where frames of these directions do not come."""
    return {
        name: HostHealth(
            True,
            (*(StatedTunnel(source, "vxlan", hears=False) for source, to in lost if to == name), *others.get(name, ())),
        )
        for name in HOSTS
    }


def codes(statements: dict[str, HostHealth]) -> list[tuple[str, tuple[str, ...]]]:
    return [(found.code, found.hosts) for found in findings(view(), statements)]


def test_nothing_is_wrong_with_a_sound_mesh() -> None:
    assert codes(stating()) == []


def test_one_way_and_both_ways_are_told_apart() -> None:
    assert codes(stating(("xen1", "xen2"))) == [("tunnel-one-way", ("xen1", "xen2"))]
    assert codes(stating(("xen1", "xen2"), ("xen2", "xen1"))) == [("tunnel-cut", ("xen1", "xen2"))]


def test_a_sender_that_is_told_knows_as_well_as_the_receiver() -> None:
    told = (StatedTunnel("xen2", "vxlan", heard=False),)
    assert codes(stating(xen1=told)) == [("tunnel-one-way", ("xen1", "xen2"))]
    assert codes(stating(("xen1", "xen2"), xen1=told)) == [("tunnel-one-way", ("xen1", "xen2"))]


def test_a_host_that_reaches_no_other_one_is_the_one_finding() -> None:
    cut = [pair for pair in permutations(HOSTS, 2) if "xen3" in pair]
    assert codes(stating(*cut)) == [("tunnels-cut", ("xen3",))]


def test_where_nobody_reaches_anybody_no_host_is_named_alone() -> None:
    assert {code for code, _ in codes(stating(*permutations(HOSTS, 2)))} == {"tunnel-cut"}


def test_hosts_that_do_not_look_are_no_finding() -> None:
    statements = stating(("xen1", "xen2"), ("xen3", "xen2"))
    del statements["xen1"], statements["xen3"]
    assert codes(statements) == []


def test_a_narrow_path_names_what_to_state() -> None:
    narrow = (StatedTunnel("xen2", "vxlan", needs=1550, mtu=1450),)
    (found,) = findings(view(), stating(xen1=narrow))
    assert found.code == "tunnel-mtu"
    assert "packets of up to 1450 bytes arrive" in found.text
    assert "to 1600" in found.remedy
    assert "mtu: 1500" in found.remedy


def test_a_host_whose_tunnels_are_all_narrow_is_the_one_finding_and_all_of_all_hosts_too() -> None:
    def narrow(*peers: str) -> tuple[StatedTunnel, ...]:
        return tuple(StatedTunnel(peer, "vxlan", needs=1550, mtu=1450) for peer in peers)

    assert codes(stating(xen3=narrow("xen1", "xen2", "xen4"))) == [("tunnel-mtu", ("xen3",))]
    every = {name: narrow(*(peer for peer in HOSTS if peer != name)) for name in HOSTS}
    (found,) = findings(view(), stating(**every))
    assert found.text.startswith("tunnels of all hosts: packets of up to 1450 bytes")


def test_the_clock_that_is_off_to_most_is_named() -> None:
    statements = stating(
        xen1=(StatedTunnel("xen4", "vxlan", ahead_ms=-5000),), xen2=(StatedTunnel("xen4", "vxlan", ahead_ms=-5000),)
    )
    (found,) = findings(view(), statements)
    assert (found.code, found.hosts) == ("clock", ("xen4",))
    assert "5 s behind" in found.text


def test_events_tell_of_what_came_and_what_went() -> None:
    cut = by_subject(findings(view(), stating(("xen1", "xen2"))))
    (came,) = health_events({}, cut, 5)
    (went,) = health_events(cut, {}, 6)
    assert (came.kind, went.kind) == ("health", "health-good")
    assert came.text in went.text
    assert list(health_events(cut, cut, 7)) == []


def test_nonsense_of_an_agent_is_no_statement() -> None:
    for text in ("{", "[]", '{"looks": 3}', '{"looks": true, "tunnels": [{"peer": 1}]}', "\x00"):
        assert not HostHealth.decode(text).looks
    assert HostHealth.decode("") == HostHealth()
    found = HostHealth(True, (StatedTunnel("xen2", "vxlan", False, None, 1, 2, 3, -4),))
    assert HostHealth.decode(found.encode()) == found
