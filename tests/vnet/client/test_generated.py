"""The generated code is what the declarations give."""

from __future__ import annotations

from inspect import signature

import msgspec
import pytest

from vnet import api
from vnet.api.generate import generated
from vnet.client import AsyncClient, Client
from vnet.client.calls import Calls
from vnet.grammar.declare import plain
from vnet.objects import Network, NetworkType
from vnet.objects.state import CONFIGURED


def test_checked_in_code_is_generated_anew_without_a_difference() -> None:
    for path, text in generated().items():
        assert path.read_text() == text, f"{path}: run python -m vnet.api.generate"


@pytest.mark.parametrize("declared", CONFIGURED, ids=lambda declared: declared.__name__)
def test_bodies_have_a_field_for_each_that_a_toolstack_sets(declared: type) -> None:
    resource = api.RESOURCES[declared.NOUN.word]  # type: ignore[attr-defined]  # each is declared
    assert resource.spec.__struct_encode_fields__ == resource.change.__struct_encode_fields__
    assert set(resource.spec.__struct_encode_fields__) < set(resource.answer.__struct_encode_fields__)


def test_a_body_has_only_what_is_stated() -> None:
    assert msgspec.json.encode(api.VifSpec(network="a", addresses=[])) == b'{"network":"a","addresses":[]}'
    assert msgspec.json.encode(api.VifChange(trunk=None)) == b'{"trunk":null}'
    assert msgspec.json.encode(api.ExpectationChange(from_="a")) == b'{"from":"a"}'


def test_a_networks_answer_has_the_key_that_its_type_has() -> None:
    vxlan = plain(Network("a", NetworkType.VXLAN, 1, 1450, key=5), document=False)
    gre = plain(Network("b", NetworkType.GRE, 2, 1450, key=6), document=False)
    relayed = plain(Network("c", NetworkType.VLAN, 3, 1500, key=7, tag=0, uplink="up"), document=False)
    assert [(each["vni"], each["key"], each["tag"]) for each in (vxlan, gre, relayed)] == [
        (5, None, None),
        (None, 6, None),
        (None, None, "untagged"),
    ]


def test_both_clients_have_every_call_and_say_what_it_answers() -> None:
    calls = {name for name in vars(Calls) if not name.startswith("_")}
    assert {"vifs", "put_vif", "apply", "trace"} < calls
    own = {"capture", "close", "follow", "send"}
    for client in (Client, AsyncClient):
        assert {name for name in dir(client) if not name.startswith("_")} == calls | own
        assert signature(client.vif).return_annotation == "api.Vif"
        assert client.vif.__doc__ == "One VIF. Raises NotFound."
