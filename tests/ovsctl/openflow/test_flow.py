"""Flows to the wire and back."""

from __future__ import annotations

import pytest

from ovsctl.openflow import (
    Add,
    Ct,
    FieldError,
    Flow,
    FlowDeletion,
    FlowFlags,
    FlowModCommand,
    FlowTable,
    GotoTable,
    Match,
    Modify,
    Move,
    Nat,
    Output,
    RegField,
    Resubmit,
    SetField,
    ToController,
    decode_flow_mod,
    encode_flow_mod,
)


def test_flow_mod_decodes_to_the_flow_it_was_made_of() -> None:
    flow = Flow(
        Match(in_port=1, dl_vlan=5, reg0=5, reg1=(3, 7), eth_type=0x0800, ct_state="+trk-new"),
        (
            SetField("reg0", 7),
            SetField(RegField(1, 21, 22), 2),
            Move("eth_src", "eth_dst"),
            Ct(True, table=5, zone="reg0[0..15]", nat=Nat("src", "10.0.0.1")),
            ToController(100, b"abc"),
            Resubmit(20),
            Output(5),
            GotoTable(12),
        ),
        table=10,
        priority=100,
        cookie=7,
    )
    mod = decode_flow_mod(encode_flow_mod(flow, FlowModCommand.MODIFY_STRICT, cookie_mask=3))
    assert mod.flow == flow
    assert (mod.command, mod.cookie_mask, mod.all_tables) == (FlowModCommand.MODIFY_STRICT, 3, False)


def test_equal_matches_however_written() -> None:
    assert Match(reg0=1, reg1=2) == Match(xreg0=0x1_0000_0002)
    assert Match(dl_vlan=9) == Match(vlan_vid=0x1009) == Match(vlan_tci=(0x1009, 0x1FFF))
    assert Match(eth_src="0a:00:00:00:00:01/00:00:00:00:00:00") == Match()


def test_prerequisite_is_asked_for() -> None:
    with pytest.raises(FieldError, match="ip_src: it exists only together with eth_type=0x0800"):
        Match(ip_src="10.0.0.1")


def test_table() -> None:
    kept, old, gone = (Flow(Match(in_port=n), (Output(n),)) for n in (1, 2, 3))
    new = Flow(old.match, (Output(9),))
    actual, desired = FlowTable([kept, old, gone]), FlowTable([kept, new, Flow(table=5)])
    changes = FlowTable.diff(desired, actual)
    assert changes == [Add(Flow(table=5)), Modify(new, old), FlowDeletion(gone)]
    assert [change.command for change in changes] == [
        FlowModCommand.ADD,
        FlowModCommand.MODIFY_STRICT,
        FlowModCommand.DELETE_STRICT,
    ]
    assert Modify(new, Flow(old.match, cookie=5)).command is FlowModCommand.ADD
    assert actual != desired
    actual.apply(changes)
    assert actual == desired
    assert actual.get(old) == new
    assert new in actual
    assert old not in actual
    assert gone not in actual
    assert len(actual) == 3
    assert set(actual) == {kept, new, Flow(table=5)}
    assert actual != "table"
    actual.discard(gone)
    assert actual == desired


def test_flags_of_the_message_are_no_difference() -> None:
    plain, checked = FlowTable([Flow()]), FlowTable([Flow(flags=FlowFlags.CHECK_OVERLAP | FlowFlags.RESET_COUNTS)])
    assert not FlowTable.diff(checked, plain)
