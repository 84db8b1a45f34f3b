from __future__ import annotations

import copy
import pickle

import pytest

from ovsctl.ovsdb import ZERO_UUID, BadValue, Map, NamedUuid, is_uuid


def test_map_is_an_immutable_hashable_dict() -> None:
    one = Map({"a": 1})
    assert one == {"a": 1}
    assert hash(one) == hash(Map([("a", 1)]))
    assert {one: "x"}[Map({"a": 1})] == "x"
    for change in (
        lambda: one.__setitem__("b", 2),
        lambda: one.__delitem__("a"),
        lambda: one.update(b=2),
        lambda: one.pop("a"),
        lambda: one.setdefault("b", 2),
        one.popitem,
        one.clear,
    ):
        with pytest.raises(TypeError, match="immutable"):
            change()
    assert one == {"a": 1}


def test_map_survives_copy_and_pickle() -> None:
    one = Map({"a": 1})
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (other, type(other)) == (one, Map)


def test_named_uuid_is_an_id() -> None:
    assert NamedUuid("row_1").name == "row_1"
    for name in ("", "1a", "a-b", "a b", "é"):
        with pytest.raises(BadValue):
            NamedUuid(name)


def test_uuid_form() -> None:
    assert is_uuid(ZERO_UUID)
    for text in ("", ZERO_UUID[:-1], ZERO_UUID + "0", ZERO_UUID.replace("0", "A"), ZERO_UUID + "\n"):
        assert not is_uuid(text)
