"""The text of ofproto/trace as values: what the integration bridge decided, however deep other bridges are nested in it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.probe.ofproto_trace_parser import NotATrace, RealOutput, RealStep, parse_trace

# A flood, as Open vSwitch 3.1 prints it: to the sender itself, through a native tunnel, into an uplink's bridge, then to a VIF.
FLOOD = """\
Flow: arp,in_port=2,vlan_tci=0x0000,dl_src=0a:00:00:00:00:01

bridge("br-int")
----------------
 0. in_port=2,vlan_tci=0x0000/0x1fff, priority 100, cookie 0x766e03c07e1c1285
    set_field:0x1->reg0
    resubmit(,60)
60. reg0=0x1,metadata=0x1, priority 110, cookie 0x766e02623f71cdc9
    resubmit(,80)
    80. reg2=0x2, priority 100, cookie 0x766e03c07e1c1285
            output:2
             >> skipping output to input port
    set_field:0x1389->tun_id
    set_field:10.99.0.2->tun_dst
    output:1
     -> output to native tunnel
     >> native tunnel routing failed
    output:9

        bridge("br-trunk0")
        -------------------
         0. priority 0
            NORMAL
             -> no learned MAC for destination, flooding
    resubmit(,80)
    80. No match.
            drop
    output:3

Final flow: unchanged
Megaflow: recirc_id=0,eth,arp,in_port=2
Datapath actions: 7,3
"""


def test_a_flood_with_other_bridges_in_it() -> None:
    found = parse_trace(FLOOD)
    assert [(step.table, step.priority) for step in found.steps] == [(0, 100), (60, 110), (80, 100), (80, -1)]
    assert found.steps[1].cookie == 0x766E02623F71CDC9
    assert found.steps[3] == RealStep(80, "", -1, 0, ("drop", "output:3"))
    peer = (5001, "10.99.0.2")
    assert found.outputs == (RealOutput(1, *peer), RealOutput(9, *peer), RealOutput(3, *peer))
    assert found.warnings == ("native tunnel routing failed",)
    assert not found.dropped


def test_outputs_by_register_and_back_where_it_came_from() -> None:
    text = FLOOD.replace("    output:3\n", "    output:NXM_NX_REG2[]\n     -> output port is 4\n    IN_PORT\n")
    assert [output.port for output in parse_trace(text).outputs] == [1, 9, 4, 2]
    gone = text.replace("     -> output port is 4\n", "     -> output port is 4\n     >> Nonexistent output port\n")
    assert [output.port for output in parse_trace(gone).outputs] == [1, 9, 2]


@pytest.mark.parametrize(
    "text", ["", "no such bridge", FLOOD.partition("Datapath")[0], FLOOD.replace("10.99.0.2", "x")]
)
def test_what_is_no_trace(text: str) -> None:
    with pytest.raises(NotATrace):
        parse_trace(text)


@given(st.lists(st.sampled_from(FLOOD.splitlines()) | st.text(max_size=40), max_size=40))
def test_any_lines_are_a_trace_or_none(lines: list[str]) -> None:
    with contextlib.suppress(NotATrace):
        parse_trace("\n".join(lines))
