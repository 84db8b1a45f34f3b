"""Pause notices as frames: what is written is read, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vnet.util.hello_frames import HostHello, hello_frame, pool_mark, read_hello
from vnet.util.pause_frames import MOST_VIFS, PauseNotice, pause_frames, read_pause

NAMES = st.text(st.characters(codec="ascii"), max_size=128)
EPOCHS = st.dictionaries(NAMES, st.integers(0, 2**63), max_size=3 * MOST_VIFS)


@given(NAMES, EPOCHS)
def test_a_notice_is_read_as_it_was_written_and_is_no_hello(host: str, epochs: dict[str, int]) -> None:
    frames = [*pause_frames(PauseNotice(pool_mark("p"), host, epochs))]
    assert len(frames) == -(-len(epochs) // MOST_VIFS)
    found: dict[str, int] = {}
    for frame in frames:
        assert 60 <= len(frame) <= 14 + 1280
        assert read_hello(frame) is None
        notice = read_pause(frame)
        assert notice is not None
        assert (notice.pool, notice.host) == (pool_mark("p"), host)
        found.update(notice.epochs)
    assert found == epochs


@given(st.binary(max_size=200), st.integers(0, 120))
def test_hostile_frames_are_read_without_failing(noise: bytes, keep: int) -> None:
    read_pause(noise)
    (frame,) = pause_frames(PauseNotice(pool_mark("p"), "h" * 63, {"v" * 63: 1}))
    read_pause(frame[:keep] + noise)
    assert read_pause(frame[:60]) is None
    assert read_pause(hello_frame(HostHello(pool_mark("p"), "h"))) is None
