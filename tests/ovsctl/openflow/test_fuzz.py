"""A short run of the fuzzer, and random bytes for every decoder by itself."""

from __future__ import annotations

import contextlib
import random

from hypothesis import given
from hypothesis import strategies as st

from ovsctl.openflow.errors import DecodeError
from ovsctl.openflow.messages import ASYNC_DECODERS, MULTIPART_DECODERS, REPLY_DECODERS, ErrorMessage, Hello
from ovsctl.openflow.wire import Reader
from tests.ovsctl.openflow.fuzz import corpus, one_session

DECODERS = [*REPLY_DECODERS.values(), *ASYNC_DECODERS.values(), *MULTIPART_DECODERS.values()]
DECODERS += [ErrorMessage.decode, Hello.decode]


def test_spoiled_messages_give_events_or_a_typed_error() -> None:
    messages = corpus()
    events = sum(one_session(messages, random.Random(seed)) for seed in range(2000))
    assert events > 3 * 2000  # much of it gets through to the decoders


@given(st.sampled_from(DECODERS), st.binary(max_size=200))
def test_random_bytes(decode: object, data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        value = decode(Reader(data))  # type: ignore[operator]
        list(value) if hasattr(value, "__next__") else None
