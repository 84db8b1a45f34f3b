"""The clocks of hosts as a controller measures them, and the order of frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vnet.controller.captures import CapturingHost, FrameOrder, measured
from vnet.db.captures import Captured, CapturedVif, CapturePlan, CaptureReport, Counts

DELAYS = st.integers(0, 50_000_000)
PLAN = CapturePlan([CapturedVif("web/0", "lan")])


@given(st.integers(-(10**12), 10**12), DELAYS, DELAYS, DELAYS)
def test_the_error_is_a_bound(ahead: int, there: int, busy: int, back: int) -> None:
    """Whatever the clocks and the delays: what is stated of a host's clock is right within the error that is stated."""
    sent = 1_700_000_000_000_000_000
    heard = sent + there - ahead
    made = heard + busy
    found = measured(sent // 1000, CaptureReport(heard=heard, made=made), made + ahead + back)
    assert abs(found.ahead - ahead) <= found.error + 1


def test_a_better_measure_takes_the_place_of_a_worse_or_an_old_one() -> None:
    host = CapturingHost("xen1", PLAN, 0, 0)

    def take(number: int, at_ns: int, delay_ns: int) -> int:
        report = CaptureReport(1, beat=at_ns // 1000, heard=at_ns + delay_ns, made=at_ns + delay_ns)
        host.take(number, report, at_ns + 2 * delay_ns)
        assert host.offset is not None
        return host.offset.error

    assert take(1, 10**9, 5_000_000) == 5_000_000
    assert take(2, 2 * 10**9, 1_000_000) == 1_000_000
    assert take(3, 3 * 10**9, 3_000_000) == 1_000_000
    assert take(4, 60 * 10**9, 3_000_000) == 3_000_000, "after a minute clocks may have drifted by 6 ms"


def test_counts_go_on_when_the_agent_is_another() -> None:
    host = CapturingHost("xen1", PLAN, 0, 0)
    for number, (run, came, dropped) in enumerate(((1, 5, 1), (1, 7, 1), (2, 1, 0), (2, 4, 2), (3, 1, 0)), 1):
        host.take(number, CaptureReport(run, counts=[Counts(came, dropped)]), number)
    assert host.counts[0] == (12, 3)
    assert host.take(6, CaptureReport(3, frames="nonsense", counts=[Counts(1, 0)] * 9), 6) == []
    assert host.counts.keys() == {0, 1}, "no more interfaces than the plan has"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=20), st.integers(0, 20))
def test_frames_come_out_by_their_times(frames: list[tuple[int, int]], limit: int) -> None:
    order = FrameOrder()
    for at_ns, interface in frames:
        order.add(at_ns, interface, Captured(interface, at_ns, b"", 0))
    first = [(at_ns, interface) for at_ns, interface, _ in order.until(limit)]
    rest = [(at_ns, interface) for at_ns, interface, _ in order.until(99)]
    assert first + rest == sorted(frames, key=lambda frame: frame[0])
    assert all(at_ns <= limit for at_ns, _ in first)
