"""What an agent says that it waits for. On plain values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vnet.agent.obstacles import AgentFacts, obstacle

WORKS = AgentFacts("kvm3", None, None, "", "", ("kvm1", "kvm2", "kvm3"), "", True)


def test_an_agent_that_has_all_it_needs_works() -> None:
    assert obstacle(WORKS) is None


@pytest.mark.parametrize(
    ("changes", "topic", "texts"),
    [
        ({"ovs": {"unix:/x": "No such file"}}, "open vswitch", ["unix:/x: No such file", "openvswitch-switch"]),
        ({"pool": {"tcp:10.0.0.1:6640": "refused"}}, "pool database", ["tcp:10.0.0.1:6640: refused"]),
        ({"pool": {}}, "pool database", ["no answer yet"]),
        ({"pool": {}, "objection": "has no pool"}, "objection", ["has no pool", "vnet host leave"]),
        ({"holder": "switch 7 on machine m"}, "rival", ["kvm3", "switch 7 on machine m"]),
        ({"hosts": None}, "empty pool", ["no document"]),
        ({"host": "kvm-3"}, "unknown host", ["kvm-3", "is this kvm3?", "--host kvm3"]),
        ({"host": "alpha"}, "unknown host", ["alpha", "it has kvm1, kvm2, kvm3"]),
        ({"hosts": ()}, "unknown host", ["it has none"]),
        ({"switch": "unix:/run/br-int.mgmt"}, "switch", ["ovs-vswitchd", "unix:/run/br-int.mgmt"]),
        ({"programmed": False}, "flows", ["flows"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_obstacle_and_what_its_text_has(changes: dict[str, Any], topic: str, texts: list[str]) -> None:
    found = obstacle(replace(WORKS, **changes))
    assert found is not None
    assert found.topic == topic
    assert [text for text in texts if text not in found.text] == []


def test_an_agent_on_its_own_copy_works_once_the_switch_holds_it() -> None:
    cases: tuple[dict[str, Any], ...] = (
        {"pool": {"tcp:10.0.0.1:6640": "refused"}},
        {"pool": {}, "objection": "has no pool"},
    )
    for changes in cases:
        on_copy = replace(WORKS, copy="copy of pool 7, of revision 3", **changes)
        found = obstacle(on_copy)
        assert found is not None
        assert found.works
        assert found.text.startswith("runs on its own copy of pool 7, of revision 3; the pool database ")
        lacks: tuple[dict[str, Any], ...] = ({"programmed": False}, {"switch": "unix:/run/br-int.mgmt"})
        for missing in lacks:
            found = obstacle(replace(on_copy, **missing))
            assert found is not None
            assert not found.works


def test_of_several_the_first_of_a_start_is_named() -> None:
    everything = replace(WORKS, ovs={}, pool={}, hosts=None, switch="x", programmed=False)
    topics = []
    for name, met in [("ovs", None), ("pool", None), ("hosts", WORKS.hosts), ("switch", ""), ("programmed", True)]:
        found = obstacle(everything)
        topics.append(found.topic if found else "")
        everything = replace(everything, **{name: met})
    assert topics == ["open vswitch", "pool database", "empty pool", "switch", "flows"]
