"""What a host has heard of a VIF's groups, till when that holds, and what its switch does once nobody hears any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.polling import until
from tests.vnet.agent.pool import TENANT, pool_of
from tests.vnet.agent.pool import vif as vif_of
from vnet.objects import LockingMode, Vif
from vnet.objects.heard_groups import HeardGroups
from vnet.objects.multicast import LAST_QUERY_MS, MAX_GROUPS, ROUTER_MS, Listening, kept_ms, response_ms
from vnet.util.membership_frames import Membership

A, B, INTERVAL_S = "239.1.1.1", "ff05::1", 100
LOCKED = Vif("vm/0", "lan", "0a:00:00:00:00:01")
UNLOCKED = Vif("vm/0", "lan", "0a:00:00:00:00:01", locking_mode=LockingMode.UNLOCKED)
NOTHING = Listening()
JOIN, LEAVE, BLOCK = Membership((A, B)), Membership((), (A,)), Membership((), (), (A,))


def heard(*reports: tuple[int, Membership], vif: Vif = LOCKED, known: Listening | None = NOTHING) -> HeardGroups:
    found = HeardGroups.new(known, 0, INTERVAL_S)
    for now_ms, report in reports:
        found = found.after(report, now_ms, INTERVAL_S, vif)
    return found


def test_nothing_is_known_before_a_whole_interval() -> None:
    """What is heard till then is known afterwards."""
    found = heard((50_000, JOIN), known=None)
    assert found.listening(99_999) is None
    assert found.listening(100_000) == Listening((A, B))
    assert heard(known=Listening((A,))).listening(0) == Listening((A,))


def test_a_group_is_kept_for_two_intervals_and_a_response() -> None:
    """It is asked for by itself before, each second."""
    found, end = heard((1000, JOIN), (5000, Membership((A,)))), 1000 + 2 * 100_000 + 10_000
    assert (kept_ms(INTERVAL_S), response_ms(INTERVAL_S), response_ms(1)) == (210_000, 10_000, 500)
    assert found.listening(end - 1) == Listening((A, B))
    assert (found.expiring(end - 3001), found.expiring(end - 3000), found.expiring(end)) == ((), (B,), ())
    assert found.listening(end) == found.aged(end).listening(end) == Listening((A,))
    assert found.aged(end - 1) is found
    asked = found.once_asked(0, 1000)
    assert (asked.due(1000), asked.due(end - 2500)) == (end - 3000, end - 1500)


def test_who_leaves_is_asked_again_where_others_may_be_behind_it() -> None:
    for vif, report, at_once in ((LOCKED, LEAVE, True), (UNLOCKED, LEAVE, False), (LOCKED, BLOCK, False)):
        left = heard((0, JOIN), (1000, report), vif=vif)
        assert left.listening(1000) == (Listening((B,)) if at_once else Listening((A, B)))
        assert left.listening(1000 + LAST_QUERY_MS) == Listening((B,))
        assert left.after(Membership((A,)), 1500, INTERVAL_S, vif).listening(10_000) == Listening((A, B))
    assert heard((0, LEAVE)).listening(0) == Listening()


def test_who_may_be_a_router_is_one_for_a_while() -> None:
    query = Membership(router=True)
    assert heard((0, query)).listening(0) == Listening()
    router = Vif("vm/0", "lan", "0a:00:00:00:00:01", router=True)
    for vif in (UNLOCKED, router):
        assert heard((0, query), vif=vif).listening(ROUTER_MS - 1) == Listening((), router=True)
        assert heard((0, query), vif=vif).listening(ROUTER_MS) == Listening()


def test_ten_thousand_groups_are_every_group_till_they_are_fewer() -> None:
    """What is kept is bounded; groups of the link are not kept at all."""
    many = Membership(tuple(f"239.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(10_000)))
    found = heard((0, many))
    assert len(found.groups) == MAX_GROUPS
    assert found.listening(1000) == Listening((), every=True)
    assert found.listening(kept_ms(INTERVAL_S)) == Listening()
    assert heard((0, Membership(("224.0.0.251", "ff02::fb", "ff02::1:ff00:1")))).groups == {}


def test_a_new_vif_is_asked_twice_soon_and_then_each_interval() -> None:
    found, times = heard(known=None), []
    for _ in range(4):
        times.append(found.ask_at)
        found = found.once_asked(found.ask_at, INTERVAL_S)
    assert times == [0, 25_000, 125_000, 225_000]


@pytest.mark.usefixtures("ovs")
async def test_a_switch_floods_again_a_while_after_nobody_hears_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the agent lives it says so to the switch, and nothing comes that nobody listens to; one that starts again goes on so."""
    monkeypatch.setattr("vnet.compile.multicast.LEASE_S", 3)
    monkeypatch.setattr("vnet.agent.multicast_snooping.RENEWED_MS", 200)
    async with pool_of("xen1", networks=(replace(TENANT, multicast_snooping=True, query_interval=1),)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif_of(1), vif_of(2))
        for number in (1, 2):
            host.add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", "xen1")
        sender, receiver = (host.agent.compiler.view.ports[f"vm{number}/0"] for number in (1, 2))
        packet = (
            f"in_port={sender},udp,dl_src={vif_of(1).mac},dl_dst=01:00:5e:01:01:01,nw_src=10.1.0.1,nw_dst=239.1.1.1"
        )

        def arrives() -> bool:
            return f"output:{receiver}" in host.switch.appctl("ofproto/trace", "br-int", packet)

        assert arrives(), "nothing is known yet"
        await until(lambda: not arrives(), "it was asked and listens to nothing")
        sent = host.agent.flows.messages
        await until(lambda: host.agent.flows.messages >= sent + 2 * 20, "said for longer than it holds")
        assert not arrives()
        await host.stop()
        assert not arrives()
        await until(arrives, "nobody hears what it joins")
        host.start()
        await until(lambda: not arrives(), "what is known holds again")
