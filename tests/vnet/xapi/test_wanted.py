"""What vnet is to have for xapi's records."""

from __future__ import annotations

from typing import Any

import pytest

from vnet.xapi.inventory import EventsLost, Inventory
from vnet.xapi.records import NULL, EventBatch, XapiEvent
from vnet.xapi.wanted import WantedVif, labels_of, title_of, wanted_vm

VIF = {
    "uuid": "v",
    "device": "1",
    "network": "net",
    "VM": "vm",
    "MAC": "0A:00:00:00:00:01",
    "locking_mode": "network_default",
}
RECORDS: dict[tuple[str, str], dict[str, Any]] = {
    ("host", "h1"): {"uuid": "1", "hostname": "kvm1", "address": "10.0.0.1", "other_config": {"vnet-host": "xen1"}},
    ("host", "h2"): {"uuid": "2", "hostname": "xen2", "address": "10.0.0.2"},
    ("network", "net"): {
        "uuid": "n", "name_label": "N", "bridge": "vn-1", "default_locking_mode": "disabled",
        "other_config": {"vnet-pool": "pool", "vnet-network": "blue"},
    },
    ("vm", "vm"): {
        "uuid": "u", "name_label": "a\u202eb", "power_state": "Running", "resident_on": "h1", "scheduled_to_be_resident_on": "h2",
    },
    ("vif", "vif"): VIF,
}  # fmt: skip


def inventory(**changed: dict[str, Any]) -> Inventory:
    """All records, with fields of some classes changed."""
    records = {key: {**record, **changed.get(key[0], {})} for key, record in RECORDS.items()}
    made = Inventory()
    made.fold(EventBatch([XapiEvent(table, "add", ref, record) for (table, ref), record in records.items()], "1"))
    assert made.problems == {}
    return made


def test_a_vm_that_migrates() -> None:
    wanted = wanted_vm(inventory(), "vm", "pool")
    assert wanted is not None
    assert (wanted.name, wanted.host, wanted.destination) == ("u", "xen1", "xen2")
    assert wanted.title == "a\ufffdb"
    assert wanted.vifs == (WantedVif("v", "blue", 1, "0a:00:00:00:00:01", "disabled", (), (), (), None),)


@pytest.mark.parametrize(
    ("label", "title"),
    [("web \u0631 1", "web \u0631 1"), ("\U0001f600 a", "\U0001f600 a"), ("a\nb\u202ec\t", "a\ufffdb\ufffdc\ufffd"), (" \u3000", "\ufffd"), ("  ", None)],
)  # fmt: skip
def test_a_label_is_a_title_that_moves_no_cursor(label: str, title: str | None) -> None:
    assert title_of(label) == title


def test_tags_are_labels() -> None:
    tags = ["web", "app=shop", "app=db", "two words", "=", "a=b=c", "\U0001f600", "tier=front"]
    assert labels_of(tags) == {"web": "true", "tier": "front"}
    assert len(labels_of(f"t{n:02}" for n in range(30))) == 16
    made = wanted_vm(inventory(vm={"tags": ["web"]}), "vm", "pool")
    assert made is not None
    assert made.labels == {"web": "true"}


def test_a_vif_with_everything() -> None:
    config = {"vnet-security-groups": "web, db"}
    made = inventory(
        vif={"locking_mode": "locked", "ipv4_allowed": ["10.1.0.1"], "ipv6_allowed": ["fd00::1"], "trunks": ["20", "10"],
             "qos_algorithm_type": "ratelimit", "qos_algorithm_params": {"kbps": "100"}, "other_config": config},
    )  # fmt: skip
    wanted = wanted_vm(made, "vm", "pool")
    assert wanted is not None
    (vif,) = wanted.vifs
    assert (vif.locking_mode, vif.addresses, vif.trunk, vif.groups) == (
        "locked", ("10.1.0.1", "fd00::1"), (10, 20), ("web", "db"),
    )  # fmt: skip
    assert (vif.rate, vif.qos) == (100, "xapi-100kib")


@pytest.mark.parametrize(
    ("changed", "pool"),
    [({"vm": {"is_a_template": True}}, "pool"), ({"vm": {"is_control_domain": True}}, "pool"), ({}, "another pool")],
)
def test_what_is_not_followed(changed: dict[str, Any], pool: str) -> None:
    assert wanted_vm(inventory(**changed), "vm", pool) is None


def test_a_vm_that_starts_is_where_it_is_about_to_be_and_one_that_is_halted_nowhere() -> None:
    starts = wanted_vm(inventory(vm={"power_state": "Halted", "resident_on": NULL}), "vm", "pool")
    halted = wanted_vm(
        inventory(vm={"power_state": "Halted", "resident_on": NULL, "scheduled_to_be_resident_on": NULL}), "vm", "pool"
    )
    assert starts is not None
    assert halted is not None
    assert [(found.host, found.destination) for found in (starts, halted)] == [("xen2", None), (None, None)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"MAC": 7},
        {"device": "x"},
        {"trunks": "all"},
        {"qos_algorithm_type": "ratelimit", "qos_algorithm_params": {"kbps": "-1"}},
    ],
)
def test_a_record_that_cannot_be_read_costs_itself_only(wrong: dict[str, Any]) -> None:
    made = inventory()
    batch = EventBatch([XapiEvent("vif", "mod", "vif", {**VIF, **wrong})], "2", {"vif": 1, "vm": 1})
    assert made.fold(batch) == {"vm"}
    assert [*made.problems] == [("vif", "vif")]
    with pytest.raises(EventsLost):
        made.fold(EventBatch([], "3", {"vif": 2}))
