"""The `ovs` package's own reading of our text: an oracle that shares no code with ovs-ofctl."""

from __future__ import annotations

from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ovs.flow import ofp

from ovsctl.openflow import Flow, format_actions, format_match
from tests.ovsctl.openflow.generate import Maker


def dumped(flow: Flow) -> str:
    """The line of `ovs-ofctl dump-flows` that ovs.flow takes."""
    head = f" cookie={flow.cookie:#x}, duration=1s, table={flow.table}, n_packets=0, n_bytes=0, "
    match = ",".join(filter(None, (f"priority={flow.priority}", format_match(flow.match))))
    return f"{head}{match} actions={format_actions(flow.actions)}"


@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**64 - 1))
def test_ovs_flow_reads_the_same(seed: int) -> None:
    for flow in Maker(Random(seed)).flows(60):
        text = dumped(flow)
        if "learn(" in text or "clone(" in text:
            continue  # it does not read all that ovs-ofctl writes there
        theirs = ofp.OFPFlow(text)
        assert (theirs.info["cookie"], theirs.info["table"]) == (flow.cookie, flow.table)
        assert theirs.match["priority"] == flow.priority
        for entry in flow.match:
            if entry.field.name.startswith("reg") or entry.field.name in ("metadata", "tun_id", "pkt_mark"):
                found = theirs.match[entry.field.name]
                assert (found.value, found.mask) == (entry.value, entry.mask)
        assert len(theirs.actions_kv) == max(len(flow.actions), 1)
