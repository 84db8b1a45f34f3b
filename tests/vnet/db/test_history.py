"""Records of changes: what they hold, what they cost, and which go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vnet.db.changes import DeleteObject, InsertObject, UpdateObject
from vnet.db.history import Author, Costs, RecordedChange, beyond, decoded, encoded, record_of
from vnet.objects import Direction, Host, Network, NetworkType, Pool, Rule, SecurityGroup, Uplink, Vm
from vnet.objects.token import ApiRole, Token

VIF, STEP = Costs("vif"), Costs()
AUTHOR = Author("token ci", "10.0.0.9", "ticket 7", "PATCH /v1/security-groups/web")
RULES = tuple(Rule(f"r{n:03}", Direction.INGRESS, remote=(f"10.0.{n}.0/24",)) for n in range(200))
WEB = SecurityGroup("web", 1, rules=RULES)


def changes_of(*changes: InsertObject | UpdateObject | DeleteObject) -> list[RecordedChange]:
    return decoded(record_of(changes, AUTHOR, 7, VIF, 5).changes)


def test_a_record() -> None:
    record = record_of((InsertObject(Vm("a")), DeleteObject(Vm("b"))), AUTHOR, 7, VIF, 5)
    assert (record.time, record.revision, record.caller, record.source) == (5, 7, "token ci", "10.0.0.9")
    assert (record.summary, record.count, record.size) == ("create vm a and 1 more", 2, len(record.changes))


def test_of_a_change_what_differs() -> None:
    old = Network("n", NetworkType.VXLAN, 1, 1450, key=5)
    (change,) = changes_of(UpdateObject(old, replace(old, mtu=1400)))
    assert change == RecordedChange("update", "network", "n", {"mtu": 1450}, {"mtu": 1400})
    pool = Pool("p", revision=4)
    (change,) = changes_of(UpdateObject(pool, replace(pool, name="q", revision=9)))
    assert (change.old, change.new) == ({"pool": "p"}, {"pool": "q"})


def test_the_plans_reason_is_with_its_change() -> None:
    costs = Costs("vif", {("vm", "b"): ("no longer in the document; it is plugged", "vif")})
    record = record_of((InsertObject(Vm("a")), DeleteObject(Vm("b"))), AUTHOR, 7, costs, 5)
    new, gone = decoded(record.changes)
    assert (new.reason, new.disruption) == ("", "")
    assert (gone.reason, gone.disruption) == ("no longer in the document; it is plugged", "vif")
    assert record.changes.count("reason") == 1  # of steps it costs nothing


def test_of_200_rules_those_that_differ() -> None:
    other = replace(RULES[7], remote=("10.9.0.0/24",))
    new = replace(WEB, rules=(*RULES[:7], other, *RULES[9:]))
    record = record_of((UpdateObject(WEB, new),), AUTHOR, 7, VIF, 5)
    (change,) = decoded(record.changes)
    assert [rule["name"] for rule in change.old["rules"]] == ["r007", "r008"]
    assert [rule["remote"] for rule in change.new["rules"]] == ["10.9.0.0/24"]
    assert record.size < 1000
    host = Host("xen1", None, (Uplink("a", ("eth0",)), Uplink("b", ("eth1",))))
    (change,) = changes_of(UpdateObject(host, replace(host, uplinks=host.uplinks[:1])))
    assert [uplink["name"] for uplink in change.old["uplinks"]] == ["b"]
    assert change.new == {"uplinks": []}


def test_a_tokens_digest_is_in_no_record() -> None:
    token = Token("ci", "secret", ApiRole.VIEWER)
    assert (
        "secret"
        not in record_of(
            (InsertObject(token), UpdateObject(token, replace(token, digest="secret2"))), AUTHOR, 0, STEP, 5
        ).changes
    )


def test_many_changes_are_compressed_and_read_back() -> None:
    many = [RecordedChange("create", "vm", f"vm{n}", {}, {"name": f"vm{n}"}) for n in range(1000)]
    assert len(encoded(many)) < 30_000
    assert decoded(encoded(many)) == many


@pytest.mark.parametrize("text", ["", "{", "{}", "z", "zAAAA", "z\x00", '[{"action": 1}]', "z" + "é" * 9])
def test_what_is_no_text_of_changes(text: str) -> None:
    with pytest.raises(ValueError, match="changes"):
        decoded(text)


def test_the_oldest_go() -> None:
    changes = {"refused": "", "stranger": False}
    rows = [{"_uuid": n, "time": n, "revision": n % 2 * n, "size": 10, **changes} for n in range(1, 11)]
    assert beyond(rows) == []
    assert sorted(beyond(rows, kept=3)) == [1, 2, 3, 4]
    assert sorted(beyond(rows, kept_bytes=75)) == [1, 2, 3]


def test_refusals_of_strangers_push_out_their_own_alone() -> None:
    refused = {"revision": 0, "size": 0, "refused": "unauthorized"}
    rows = [{"_uuid": n, "time": n, "stranger": n > 2, **refused} for n in range(10)]
    rows.append({**rows[0], "_uuid": 10, "time": 0, "refused": ""})
    assert sorted(beyond(rows, kept=3)) == [3, 4, 5, 6]
