"""A document of several files, and names by ranges: as one document that says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import TopologyErrors, load, read_file
from vnet.topology.yaml_tree import FILE_MARK, MAX_BYTES

MAIN = """apiVersion: vnet/v1
pool: parts
include: [networks/*.vnet.yaml, vms.vnet.yaml]
hosts:
  xen1: {address: 10.99.0.1}
networks:
  lan: {type: vxlan}
"""
FILES = {
    "networks/a.vnet.yaml": "networks:\n  a: {type: geneve}\n",
    "networks/b.vnet.yaml": "---\nnetworks:\n  b: {type: gre}\nsubnets:\n  b4: {network: b, cidr: 10.1.0.0/24}\n...\n",
    "networks/empty.vnet.yaml": "# nothing yet\n",
    "vms.vnet.yaml": "pool: parts\nvms:\n  web1: {host: xen1, vifs: [{network: a}]}\nexpectations:\n- {from: web1, to: web1, expect: reachable}",
}


def written(directory: Path, main: str = MAIN, **more: str) -> Path:
    for name, text in {**FILES, **more, "pool.vnet.yaml": main}.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return directory / "pool.vnet.yaml"


def problems_of(path: Path) -> list[str]:
    with pytest.raises(TopologyErrors) as caught:
        load(read_file(path), path.name)
    return [str(problem) for problem in caught.value.problems]


def test_files_are_one_document(tmp_path: Path) -> None:
    document = load(read_file(written(tmp_path)), "pool.vnet.yaml")
    assert [*document.state.networks] == ["lan", "a", "b"]
    assert [*document.state.vms] == ["web1"]
    assert [*document.state.subnets] == ["b4"]
    place = document.place("vm", "web1")
    assert place is not None
    assert document.source.position(place) == "vms.vnet.yaml:3:9"
    place = document.place("network", "lan")
    assert place is not None
    assert document.source.position(place) == "pool.vnet.yaml:7:8"


def test_problems_name_the_file_and_its_line(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        MAIN.replace("type: vxlan", "type: vxlam"),
        **{
            "networks/a.vnet.yaml": "networks:\n  lan: {type: geneve}\n  a: {type: geneve, mtu: x}\n",
            "vms.vnet.yaml": "underlay: {mtu: 9000}\npool: other\nvms:\n  web1: {vifs: [{network: nope}]}\n",
        },
    )
    assert [text.partition("\n")[0].partition(", found")[0] for text in problems_of(path)] == [
        "pool.vnet.yaml:7:15: wanted a network type: internal, vlan, vxlan, gre, geneve",
        "networks/a.vnet.yaml:2:3: key 'lan' stands twice in this map",
        "networks/a.vnet.yaml:3:26: wanted an MTU in bytes, 576..9216",
        "vms.vnet.yaml:1:1: 'underlay' cannot stand in an included file",
        "vms.vnet.yaml:2:1: 'pool' cannot stand in an included file",
        "vms.vnet.yaml:4:27: unknown network 'nope'",
    ]
    duplicate = problems_of(path)[1]
    assert "   2 |   lan: {type: geneve}" in duplicate
    assert "it is on line 7 of pool.vnet.yaml already" in duplicate


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vms.vnet.yaml": "vms:\n  web1: {vifs: [\n"}, "vms.vnet.yaml:3:1: not YAML"),
        ({"vms.vnet.yaml": "vms: {}\n---\nvms: {}\n"}, "vms.vnet.yaml:2:1: a second document starts here"),
        ({"vms.vnet.yaml": "- web1\n"}, "vms.vnet.yaml:1:1: an included file is a map, found a list"),
        ({"vms.vnet.yaml": "networks: []\n"}, "vms.vnet.yaml:1:11: 'networks' is a map in the first file"),
        ({"vms.vnet.yaml": "include: [other.vnet.yaml]\n"}, "'include' cannot stand in an included file"),
        ({"networks/a.vnet.yaml": "networks: &n {a: {type: vxlan}}\n", "vms.vnet.yaml": "vms: *n\n"}, "'*n' repeats no anchor"),
        ({"vms.vnet.yaml": "#" * MAX_BYTES}, "the document has"),
    ],
    ids=["syntax", "second", "list", "sort", "nested", "alias", "size"],
)  # fmt: skip
def test_what_a_file_cannot_be(tmp_path: Path, files: dict[str, str], message: str) -> None:
    assert any(message in text for text in problems_of(written(tmp_path, **files)))


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("[nowhere.vnet.yaml]", "pool.vnet.yaml:3:11: there is no file nowhere.vnet.yaml"),
        ("[none/*.vnet.yaml]", "there is no file none/*.vnet.yaml"),
        ("vms.vnet.yaml", "wanted a list of files"),
        ("[vms.vnet.yaml, vms.vnet.yaml]", "stands twice in this list"),
    ],
)
def test_what_include_cannot_say(tmp_path: Path, include: str, message: str) -> None:
    path = written(tmp_path, MAIN.replace("[networks/*.vnet.yaml, vms.vnet.yaml]", include))
    with pytest.raises(TopologyErrors) as caught:
        read_file(path)
    assert message in str(caught.value).replace(str(tmp_path) + "/", "")


def test_a_text_without_its_files_is_refused() -> None:
    with pytest.raises(TopologyErrors, match=r"vnet\.topology\.read_file"):
        load(MAIN.encode(), "pool.vnet.yaml")


@examples(40)
@given(st.text(alphabet="ab:\n'\"|>-[]{}#. &*", max_size=60))
def test_no_value_reaches_into_the_next_file(text: str) -> None:
    """Whatever the first file holds, the second one's problem is the second one's, or the first is refused."""
    whole = f"{MAIN}x: {text}\n{FILE_MARK}second\nvms: {{web1: {{vifs: [{{network: nope}}]}}}}\n"
    with pytest.raises(TopologyErrors) as caught:
        load(whole.encode(), "first")
    for problem in caught.value.problems:
        assert ("nope" in problem.text) <= (problem.filename == "second"), problem


def test_names_by_a_range() -> None:
    text = MAIN.replace("include: [networks/*.vnet.yaml, vms.vnet.yaml]\n", "") + (
        "subnets: {s: {network: lan, cidr: 10.1.0.0/24}}\n"
        'vms:\n  "web[008-011]-a": {host: xen1, vifs: [{network: lan}]}\n  db1: {vifs: [{network: lan}]}\n'
    )
    state = desired_state(load(text.encode(), "t"), PoolState())
    assert [*state.vms] == ["web008-a", "web009-a", "web010-a", "web011-a", "db1"]
    assert len({vif.mac for vif in state.vifs.values()}) == len({vif.addresses for vif in state.vifs.values()}) == 5


@pytest.mark.parametrize("name", ["web[3-1]", "web[01-2]", "web[1-99999]"])
def test_what_is_no_range(name: str) -> None:
    text = MAIN.replace("include: [networks/*.vnet.yaml, vms.vnet.yaml]\n", "") + f"vms: {{'{name}': {{}}, web1: {{}}}}"
    with pytest.raises(TopologyErrors, match="is no range of names"):
        load(text.encode(), "t")


def test_a_name_of_a_range_that_stands_by_itself_too() -> None:
    text = MAIN.replace("include: [networks/*.vnet.yaml, vms.vnet.yaml]\n", "") + "vms: {'web[1-3]': {}, web2: {}}"
    with pytest.raises(TopologyErrors, match="'web2' stands twice"):
        load(text.encode(), "t")
