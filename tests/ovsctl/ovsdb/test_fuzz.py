"""A short run of the fuzzer."""

from __future__ import annotations

import random
import tracemalloc

from ovsctl.ovsdb import MessageTooLong, ProtocolError, Session
from tests.examples import examples
from tests.ovsctl.ovsdb.fuzz import one_case


def test_mangled_messages_give_typed_errors() -> None:
    for seed in range(examples(3000).max_examples):
        one_case(random.Random(seed))


def test_a_flood_of_any_kind_is_bounded() -> None:
    floods = [b'{"a":"' + b"x" * 65530, b"{" * 65536, b'{"a":[' + b"[" * 65530, b'{"a":"' + b"\\" * 65530]
    for flood in floods:
        session = Session(max_message_bytes=1_000_000)
        tracemalloc.start()
        try:
            for _ in range(100):
                session.receive(flood)
        except (MessageTooLong, ProtocolError):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20_000_000, flood[:10]
