"""What hosts report of captures: read back as it was packed, and refused whole where nobody packed it."""

from __future__ import annotations

import zlib
from base64 import b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.db.captures import (
    MAX_FRAME_BYTES,
    MAX_REPORTED,
    MAX_VIFS,
    Captured,
    CapturedVif,
    CapturePlan,
    CaptureReport,
    columns_of,
    decode_report,
    packed,
    plan_of,
    text_of,
    unpacked,
)
from vnet.objects import InvalidValue

CAPTURED = st.binary(min_size=1, max_size=60).flatmap(
    lambda frame: st.builds(
        Captured, st.integers(0, 3), st.integers(0, (1 << 64) - 1), st.just(frame), st.integers(len(frame), 9238)
    )
)


@given(st.lists(CAPTURED, max_size=8))
def test_frames_are_read_back(frames: list[Captured]) -> None:
    assert unpacked(packed(frames), 4) == frames


def test_the_largest_report_is_read() -> None:
    frames = [Captured(0, 1, bytes(MAX_FRAME_BYTES), MAX_FRAME_BYTES)] * (MAX_REPORTED // MAX_FRAME_BYTES + 1)
    assert unpacked(packed(frames), 2) == frames


def text(data: bytes) -> str:
    return b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize(
    "wrong",
    [
        "no base64", b64encode(b"no zlib").decode(), text(bytes(5)), text(b"\x02" + bytes(8) + b"\0\1\0\1a"),
        text(b"\0" + bytes(8) + b"\0\2\0\2a"), text(b"\0" + bytes(8) + b"\0\2\0\1ab"), text(bytes(13) * 1_000_000),
        b64encode(zlib.compress(b"")[:-1]).decode(), b64encode(zlib.compress(b"") + b"more").decode(),
    ],
)  # fmt: skip
def test_what_nobody_packed(wrong: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own text
        unpacked(wrong, 2)


@given(st.text(max_size=60) | st.binary(max_size=60).map(text))
def test_nonsense_is_refused_or_has_frames_of_interfaces(wrong: str) -> None:
    try:
        found = unpacked(wrong, 2)
    except ValueError:
        return
    assert all(frame.interface < 2 and len(frame.frame) <= frame.length for frame in found)


def test_a_report_that_is_none_captures_nothing() -> None:
    assert "is no report" in decode_report('{"counts": 7}').problem
    report = CaptureReport(1, beat=2, here=["web/0"], frames="")
    assert decode_report(report.encode()) == report


VIF = CapturedVif("web/0", "lan")


@pytest.mark.parametrize(
    "plan",
    [
        CapturePlan([]), CapturePlan([VIF, VIF]), CapturePlan([CapturedVif(str(n), "lan") for n in range(MAX_VIFS + 1)]),
        CapturePlan([VIF], snap=13), CapturePlan([VIF], snap=9239), CapturePlan([VIF], rate=0), CapturePlan([VIF], rate=2001),
    ],
)  # fmt: skip
def test_plans_that_no_host_carries_out(plan: CapturePlan) -> None:
    with pytest.raises(InvalidValue):
        plan_of({"plan": text_of(plan)})
    with pytest.raises(InvalidValue):
        plan_of({"plan": msgspec.json.encode([1]).decode()})


def test_a_plan_is_read_back() -> None:
    plan = CapturePlan([VIF], "tcp", 96, 10)
    assert plan_of(dict(columns_of("c", "xen1", 1, plan, 2))) == plan
