"""The JSON Schema and the reference: current, and of one mind with the loader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.vnet.topology.schema_check import valid
from tests.vnet.topology.test_refused import CASES, LINE
from vnet.grammar.declare import Shape
from vnet.topology import load
from vnet.topology.document import root_shape
from vnet.topology.reference import REFERENCE_FILE, REPOSITORY, SCHEMA_FILE, reference_text
from vnet.topology.schema import declared_types, json_schema, schema_text, shape_in_document

TOPOLOGIES = sorted((REPOSITORY / "topologies").glob("*.vnet.yaml"))
HINT = "run: python -m vnet.topology.reference"


def test_the_schema_file_is_current() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), HINT


def test_the_reference_is_current() -> None:
    assert REFERENCE_FILE.read_text() == reference_text(), HINT


def test_every_key_has_words() -> None:
    shapes = [root_shape(), *map(shape_in_document, declared_types(root_shape()))]
    for shape in shapes:
        assert shape.doc
        shapes += [item for item in shape.words.values() if isinstance(item, Shape)]
        for word, item in shape.words.items():
            doc = item.doc if isinstance(item, Shape) else item[1].doc or item[1].type.expected + "."
            assert doc.endswith("."), f"{shape.title}: {word}"


def test_examples_in_the_reference_load() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", REFERENCE_FILE.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        load(block.encode(), "docs/topology.md")


class Words(yaml.SafeLoader):
    """YAML as an editor reads it: YAML 1.2's integers, booleans and null, every other scalar a string."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own way


Words.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?(0|[1-9][0-9]*)$"), list("-0123456789"))
Words.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|false)$"), ["t", "f"])
Words.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|)$"), ["~", "n", ""])


def in_editor(text: str) -> bool:
    schema = json_schema()
    return valid(yaml.load(text, Words), schema, schema)  # a SafeLoader


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.name)
def test_topologies_are_valid_in_an_editor(path: Path) -> None:
    assert in_editor(path.read_text())
    assert path.read_text().startswith("# yaml-language-server: $schema=../vnet/topology/vnet.schema.json\n")


# What the loader refuses by the grammar alone, an editor refuses too: by the beginnings of the cases' names.
GRAMMAR = (
    "bond-mode", "expectation-without", "locking-mode", "missing-key", "mtu-out-of-range", "name-", "network-hosts-empty",
    "network-keys", "network-private", "network-type", "network-vlan-without", "network-without", "nic-name", "not-a-map",
    "not-supported", "number-", "tag-out", "tag-zero", "trunk-empty", "unknown-key", "uplink-name", "uplink-without",
    "version-", "vni-out", "wrong-type",
)  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if c.stem.startswith(GRAMMAR)], ids=lambda case: case.stem)
def test_an_editor_refuses_what_the_grammar_refuses(case: Path) -> None:
    assert not in_editor(case.read_text().partition(LINE)[0])


def test_every_word_of_the_schema_is_one_the_oracle_knows() -> None:
    schema = json.loads(schema_text())
    assert valid({"apiVersion": "vnet/v1", "pool": "lab"}, schema, schema)
    assert not valid({"apiVersion": "vnet/v1"}, schema, schema)
    assert not valid(
        {"apiVersion": "vnet/v1", "pool": "lab", "subnets": {"a": {"network": "n", "cidr": "10.0.0.0/8", "dhcp": {}}}},
        schema,
        schema,
    )
