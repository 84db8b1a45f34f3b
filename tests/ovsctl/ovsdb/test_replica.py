"""Folding of updates: every legal form gives the same rows, every other one a typed error."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.ovsdb import (
    ZERO_UUID,
    BadValue,
    Batch,
    Change,
    ConnectionLost,
    DecodeError,
    Map,
    Monitor,
    OvsdbError,
    Replica,
    RequestError,
    Row,
    UnknownColumn,
    UnknownTable,
    fold_batches,
)
from ovsctl.ovsdb.rows import RowCodec
from tests.ovsctl.ovsdb.schemas import SCHEMA, rows
from tests.ovsctl.ovsdb.test_schema import json_values

KIND = SCHEMA.tables["Kind"]
A, B, C = (f"{n}1111111-2222-4333-8444-555555555555" for n in "abc")


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def updates(**by_row: Any) -> dict[str, Any]:
    return {"Kind": {{"a": A, "b": B, "c": C}[name]: update for name, update in by_row.items()}}


def fill(replica: Replica, found: bool = False, last_id: str = C, **by_row: Any) -> Batch:
    return replica.fold_initial(raw([found, last_id, updates(**by_row)]))


def update(replica: Replica, **by_row: Any) -> Batch:
    return replica.fold_update(B, raw(updates(**by_row)))


@pytest.fixture
def replica() -> Replica:
    return Replica(SCHEMA, {"Kind": Monitor()})


def loose(value: Any) -> Any:
    """Another legal form of an encoded value: a set of one element written as a set."""
    return value if isinstance(value, list) and value[0] in ("set", "map") else ["set", [value]]


@given(rows(), st.sets(st.sampled_from(list(KIND.columns))))
def test_initial_rows_in_every_legal_form(values: dict[str, Any], loosened: set[str]) -> None:
    encoded = KIND.encode_row(values)
    encoded |= {name: loose(value) for name, value in encoded.items() if name in loosened}
    replica = Replica(SCHEMA, {"Kind": Monitor()})
    assert fill(replica, a={"initial": encoded}) == ()
    row = replica["Kind"][A]
    expected = {name: column.type.default for name, column in KIND.columns.items()} | values
    assert row.as_dict() == expected
    assert all(row[name] == value for name, value in expected.items())
    assert row.uuid == A
    assert replica.last_id == C
    hash(row)


@given(rows(), rows(), st.sets(st.sampled_from(list(KIND.columns))))
def test_modifications_in_every_legal_form(before: dict[str, Any], after: dict[str, Any], loosened: set[str]) -> None:
    after = {name: value for name, value in after.items() if name in before}
    diff = {name: difference(name, before[name], value) for name, value in after.items()}
    encoded = {name: KIND.encode(name, value, partial=True) for name, value in diff.items()}
    encoded |= {name: loose(value) for name, value in encoded.items() if name in loosened}
    replica = Replica(SCHEMA, {"Kind": Monitor()})
    fill(replica, a={"initial": KIND.encode_row(before)})
    old = replica["Kind"][A]
    batch = update(replica, a={"modify": encoded})
    new = replica["Kind"][A]
    defaults = {name: column.type.default for name, column in KIND.columns.items()}
    assert old.as_dict() == defaults | before
    assert new.as_dict() == defaults | before | after
    assert batch == (() if old == new else (Change("Kind", A, old, new),))


def difference(column: str, before: Any, after: Any) -> Any:
    """What a modify says (ovsdb-server(7) §4.1.14)."""
    type_ = KIND.columns[column].type
    if type_.max == 1:
        return after
    if not type_.is_map:
        return before ^ after
    gone = {key: value for key, value in before.items() if key not in after}
    return gone | {key: value for key, value in after.items() if before.get(key, ...) != value}


def test_rows_are_immutable_and_reached_by_name(replica: Replica) -> None:
    fill(replica, a={"initial": {"s": "x", "uuid": 5, "class": "c", "map_ss": ["map", [["k", "v"]]]}})
    row = replica["Kind"][A]
    assert (row.s, row["s"], row["uuid"], row.uuid, row["class"]) == ("x", "x", 5, A, "c")
    assert isinstance(row.map_ss, Map)
    with pytest.raises(AttributeError):
        row.s = "y"
    with pytest.raises(UnknownColumn):
        row["nothing"]
    with pytest.raises(AttributeError):
        _ = row.nothing
    with pytest.raises(TypeError):
        replica["Kind"][B] = row  # type: ignore[index]
    assert list(replica) == ["Kind"]


def test_insert_modify_delete(replica: Replica) -> None:
    seen: list[Batch] = []
    end = replica.subscribe(seen.append)
    fill(replica)
    assert seen == []
    update(replica, a={"insert": {"i": 1}}, b={"insert": {}})
    update(replica, a={"modify": {"i": 2}}, b={"delete": None})
    update(replica, c={"delete": None})
    assert replica.last_id == B
    inserted, changed = seen
    assert [(c.uuid, c.old, c.new and c.new.i) for c in inserted] == [(A, None, 1), (B, None, 0)]
    assert [(c.uuid, c.old and c.old.i, c.new and c.new.i) for c in changed] == [(A, 1, 2), (B, 0, None)]
    assert set(replica["Kind"]) == {A}
    end()
    update(replica, a={"delete": None})
    assert len(seen) == 2


def test_full_state_after_a_reconnect_is_reported_as_the_difference(replica: Replica) -> None:
    fill(replica, a={"initial": {"i": 1}}, b={"initial": {"i": 2}})
    kept = replica["Kind"][A]
    replica.lost(resume=True)
    assert (replica.synced, replica.last_id) == (False, C)
    batch = fill(replica, a={"initial": {"i": 1}}, b={"initial": {"i": 3}}, c={"initial": {}})
    assert [(c.uuid, c.old and c.old.i, c.new and c.new.i) for c in batch] == [(B, 2, 3), (C, None, 0)]
    assert replica["Kind"][A] is kept
    batch = fill(replica, b={"initial": {"i": 3}})
    assert {c.uuid for c in batch if c.new is None} == {A, C}
    assert len(batch) == 2


def test_resumed_state_is_folded_as_an_update(replica: Replica) -> None:
    fill(replica, a={"initial": {"i": 1}})
    batch = fill(replica, found=True, last_id=A, a={"modify": {"i": 2}}, b={"insert": {}})
    assert len(batch) == 2
    assert (replica.last_id, len(replica["Kind"])) == (A, 2)
    replica.lost(resume=False)
    assert replica.last_id == ZERO_UUID


def test_another_schema_reports_only_what_differs(replica: Replica) -> None:
    fill(replica, a={"initial": {"i": 1}}, b={"initial": {"i": 2}})
    replica.use_schema(SCHEMA)
    batch = fill(replica, a={"initial": {"i": 1}}, b={"initial": {"i": 3}})
    assert [(c.uuid, c.old and c.old.i, c.new and c.new.i) for c in batch] == [(B, 2, 3)]
    update(replica, a={"modify": {"i": 5}})
    assert replica["Kind"][A].i == 5


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"Kind": []},
        {"Kind": {A: []}},
        {"Kind": {A: {}}},
        {"Kind": {A: {"other": {}}}},
        {"Kind": {A: {"initial": []}}},
        {"Kind": {A: {"initial": {"i": "x"}}}},
        {"Kind": {A: {"insert": {"class": ["set", ["a", "b"]]}}}},
        {"Kind": {A: {"insert": {"opt_u": ["set", [["uuid", A], ["uuid", B]]]}}}},
        {"Kind": {A: {"insert": {"u": ["uuid", "x"]}}}},
        {"Kind": {A: {"insert": {"u": ["set", []]}}}},
        {"Kind": {A: {"insert": {"map_ss": ["map", [["a"]]]}}}},
        {"Kind": {A: {"insert": {"range": ["set", [77]]}}}},
        {"Kind": {A: {"modify": {"set_i": ["set", ["x"]]}}}},
        {"Kind": {A: {"modify": {"class": ["set", ["a", "b"]]}}}},
        {"Kind": {A: {"delete": 1}}},
        {"Kind": {"x": {"insert": {}, "modify": 5}}},
        {"Kind": {"x": {"delete": 5}}},
        {"Kind": {C: {"modify": {"i": 5}}}},
    ],
)
def test_wrong_updates_change_nothing(replica: Replica, wrong: Any) -> None:
    fill(replica, a={"initial": {"i": 1}}, b={"initial": {}})
    before = dict(replica["Kind"])
    with pytest.raises(DecodeError):
        replica.fold_update(A, raw(wrong))
    assert dict(replica["Kind"]) == before
    if C not in wrong["Kind"] if isinstance(wrong, dict) else True:
        with pytest.raises(DecodeError):
            replica.fold_initial(raw([False, A, wrong]))
    assert dict(replica["Kind"]) == before
    assert replica.last_id == C


@pytest.mark.parametrize("answer", [5, [], [False, 5, {}], ["x", A, {}], [False, A], [False, A, 5]])
def test_wrong_answers_to_a_monitor(replica: Replica, answer: Any) -> None:
    with pytest.raises(DecodeError):
        replica.fold_initial(raw(answer))


_members = st.sampled_from(["initial", "insert", "modify", "delete"])


@given(
    st.dictionaries(
        st.sampled_from([A, B, "x"]),
        st.dictionaries(_members, st.dictionaries(st.sampled_from(list(KIND.columns)), json_values, max_size=2)),
        max_size=3,
    )
)
def test_any_updates_are_folded_or_refused_by_type(by_row: dict[str, Any]) -> None:
    replica = Replica(SCHEMA, {"Kind": Monitor()})
    fill(replica, a={"initial": {"i": 1}})
    before = dict(replica["Kind"])
    try:
        replica.fold_update(B, raw({"Kind": by_row}))
    except DecodeError:
        assert dict(replica["Kind"]) == before
    for row in replica["Kind"].values():
        hash(row)


def test_a_legal_message_in_another_form_may_delete(replica: Replica) -> None:
    fill(replica, a={"initial": {"i": 1}}, b={"initial": {}})
    update(replica, a={"modify": {"i": ["set", [2]]}}, b={"delete": None})
    assert {uuid: row.i for uuid, row in replica["Kind"].items()} == {A: 2}


@pytest.mark.parametrize("enabled", [True, False])
def test_the_cycle_collector_is_left_as_it_was(replica: Replica, enabled: bool) -> None:
    try:
        if not enabled:
            gc.disable()
        fill(replica, a={"initial": {}})
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_unmonitored_tables_and_columns_are_passed_over() -> None:
    replica = Replica(SCHEMA, {"Kind": Monitor(("i",))})
    replica.fold_initial(raw([False, C, {"Kind": {A: {"initial": {"i": 1, "s": "x"}}}, "Other": {B: {"x": 1}}}]))
    assert replica["Kind"][A].as_dict() == {"i": 1}
    replica.fold_update(C, raw({"Kind": {A: {"modify": {"i": ["set", [2]], "s": 5}}}, "Other": 7}))
    assert replica["Kind"][A].as_dict() == {"i": 2}


def test_requests_of_a_monitor() -> None:
    replica = Replica(SCHEMA, {"Kind": Monitor(("i",), (("i", "==", 3),)), "Other": Monitor(where=False)})
    assert replica.encode_monitors() == {
        "Kind": [{"columns": ["i"], "where": [["i", "==", 3]]}],
        "Other": [{"columns": ["name", "strong"], "where": [False]}],
    }
    assert replica.encode_condition("Kind", None) == replica.encode_condition("Kind", ()) == [True]
    for tables, error in (
        ({"Nothing": Monitor()}, UnknownTable),
        ({"Kind": Monitor(("nothing",))}, UnknownColumn),
    ):
        with pytest.raises(error):
            Replica(SCHEMA, tables)
    with pytest.raises(BadValue):
        replica.encode_condition("Kind", (("i", "==", "x"),))


async def test_a_subscriber_that_raises_harms_nobody(replica: Replica) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    seen: list[Batch] = []

    def broken(batch: Batch) -> None:
        raise RuntimeError("mine")

    replica.subscribe(broken)
    replica.subscribe(seen.append)
    fill(replica)
    update(replica, a={"insert": {}})
    assert len(seen) == 1
    assert [str(context["exception"]) for context in reported] == ["mine"]


async def test_stream_gives_batches_in_order(replica: Replica) -> None:
    stream = replica.changes()
    fill(replica)
    update(replica, a={"insert": {"i": 1}})
    update(replica, a={"modify": {"i": 2}})
    assert [change.new and change.new.i for change in await anext(stream)] == [1]
    later = asyncio.create_task(_next(stream))
    assert [change.new and change.new.i for change in await later] == [2]
    waiting = asyncio.create_task(_next(stream))
    await asyncio.sleep(0)
    update(replica, a={"delete": None})
    assert [change.new for change in await waiting] == [None]
    stream.close()
    assert [batch async for batch in stream] == []
    stream.close()


async def _next(stream: Any) -> Batch:
    batch: Batch = await anext(stream)
    return batch


async def test_a_stream_that_lags_is_folded(replica: Replica) -> None:
    fill(replica, a={"initial": {"i": 0}}, b={"initial": {"i": 7}})
    first = replica["Kind"][A]
    stream = replica.changes(limit=10)
    for number in range(1, 100):
        update(replica, a={"modify": {"i": number}}, c={"insert": {"i": number}})
        update(replica, b={"modify": {"i": number}}, c={"delete": None})
    update(replica, b={"modify": {"i": 7}})
    changes = {}
    stream.close()
    async for batch in stream:
        for change in batch:
            known = changes.get(change.uuid)
            assert known is None or known.new == change.old
            changes[change.uuid] = change if known is None else Change("Kind", change.uuid, known.old, change.new)
    assert changes[A] == Change("Kind", A, first, replica["Kind"][A])
    assert changes[B].old == changes[B].new


def test_folding_batches() -> None:
    codec = RowCodec(KIND, ("i",))
    one, two = (codec.row_type(uuid=A, i=i) for i in (1, 2))
    assert isinstance(one, Row)

    def change(old: Row | None, new: Row | None) -> Batch:
        return (Change("Kind", A, old, new),)

    assert fold_batches([change(None, one), change(one, two)]) == change(None, two)
    assert fold_batches([change(None, one), change(one, None)]) == ()
    assert fold_batches([change(one, two), change(two, one)]) == ()
    assert fold_batches([change(one, None), change(None, two)]) == change(one, two)


@pytest.mark.parametrize("error", [None, RequestError("gone")])
async def test_closing_ends_streams_and_waits(replica: Replica, error: OvsdbError | None) -> None:
    waiting = asyncio.create_task(replica.wait_synced())
    stream = replica.changes()
    await asyncio.sleep(0)
    replica.close(error)
    with pytest.raises(RequestError if error else ConnectionLost):
        await waiting
    if error is None:
        assert [batch async for batch in stream] == []
    else:
        with pytest.raises(RequestError):
            await anext(stream)


async def test_a_replica_without_a_client_cannot_change_conditions(replica: Replica) -> None:
    with pytest.raises(ConnectionLost):
        await replica.set_condition("Kind", None)
