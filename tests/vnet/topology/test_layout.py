"""The layout of documents by `vnet fmt`: what it writes says the same, comments included, and is its own layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.vnet.plan.pools import apply, documents
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.topology import TopologyErrors, layout
from vnet.topology.layout import WIDTH, NotKept, laid_out

Capture = pytest.CaptureFixture[str]
TOPOLOGIES = sorted((Path(__file__).parents[3] / "topologies").glob("*.yaml"))

UNTIDY = """\
# yaml-language-server: $schema=x

# of the networks
networks:


    # of b
    b: {mtu: 1400, type: 'vxlan'}   # behind b
    # of long-name
    long-name: # behind the key
       type: vxlan
       # last of long-name
    c: { # behind the bracket
      type: vxlan, # behind the type
      hosts: [x,   "y"] }   # behind c
    # last of the networks
pool: lab
apiVersion: "vnet/v1"
hosts:
- # no host
  {address: fd00::1, labels: {n: "12", on: "on"}}

# the end
"""
TIDY = """\
# yaml-language-server: $schema=x

apiVersion: vnet/v1
pool: lab
hosts:
  # no host
  - {address: "fd00::1", labels: {n: "12", "on": "on"}}

# of the networks
networks:
  # of b
  b: {type: vxlan, mtu: 1400} # behind b
  # of long-name
  long-name: # behind the key
    type: vxlan
    # last of long-name
  c: # behind the bracket
    type: vxlan # behind the type
    hosts: [x, y]
    # behind c
  # last of the networks

# the end
"""


def test_comments_go_with_what_they_belong_to() -> None:
    assert laid_out(UNTIDY.encode(), "x") == TIDY
    assert laid_out(TIDY.encode(), "x") == TIDY


@pytest.mark.parametrize("file", TOPOLOGIES, ids=lambda path: path.name)
def test_the_shipped_documents_are_laid_out(file: Path) -> None:
    assert laid_out(file.read_bytes(), file.name) == file.read_text()


@st.composite
def untidy(draw: st.DrawFn, text: str) -> str:
    """The same document in another layout, with comments and empty lines anywhere."""
    styles = st.sampled_from([None, '"', "'"])

    def restyle(node: yaml.Node) -> None:
        if isinstance(node, yaml.ScalarNode):
            if node.tag.endswith(":null"):
                node.value = "null"
            elif node.style is not None or node.tag.endswith(":str"):
                node.style = draw(styles)
            return
        node.flow_style = draw(st.booleans())
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                restyle(part)

    tree = yaml.compose(text)
    assert tree is not None
    restyle(tree)
    lines = []
    for number, line in enumerate(
        yaml.serialize(tree, width=draw(st.integers(20, 200)), indent=draw(st.integers(2, 5))).splitlines()
    ):
        match draw(st.integers(0, 9)):
            case 0:
                lines.append(" " * draw(st.integers(0, 9)) + f"# line {number}")
            case 1:
                lines.append("")
            case 2:
                line += f" # behind {number}"  # noqa: PLW2901
        lines.append(line)
    return "\n".join(lines)


@settings(max_examples=60, phases=[Phase.generate])  # what fails is a text to look at as it is
@given(st.data())
def test_the_layout_says_the_same_and_is_its_own(data: st.DataObject) -> None:
    text = data.draw(documents())
    made = data.draw(untidy(text))
    found = laid_out(made.encode(), "x")
    assert apply(found) == apply(text)
    assert laid_out(found.encode(), "x") == found
    assert found.count("#") == made.count("#")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: '12'\n", 'a: "12"\n'),
        ("a: 012\n", "a: 012\n"),
        ("a: on\n", 'a: "on"\n'),
        ("a: 2026-01-31\n", 'a: "2026-01-31"\n'),
        ("a: 12:30:45\n", 'a: "12:30:45"\n'),
        ("a: '~'\n", 'a: "~"\n'),
        ("a:\n", "a:\n"),
        ("a: {b: , c: [~]}\n", "a: {b: null, c: [~]}\n"),
        ("a: 'it''s'\n", "a: it's\n"),
        ("a: |  # why\n  # no comment\n", 'a: "# no comment\\n" # why\n'),
        ("a: [ # kept\n]\n", "a: [] # kept\n"),
        ("? a\n: b\n", "a: b\n"),
        ("a:\n- - b\n  - c: d\n    e: f\n- g\n", "a:\n  - - b\n    - c: d\n      e: f\n  - g\n"),
        ("{pool: p, apiVersion: vnet/v1}", "apiVersion: vnet/v1\npool: p\n"),
        ("---\na: b\n...\n", "a: b\n"),
        ("\ufeffa: b\r\nc: d # e\r\n", "a: b\nc: d # e\n"),
        (f"a: [{', '.join(['word'] * 40)}]\n", "a:\n" + "  - word\n" * 40),
        ("vms:\n  a: {}\n\n  # late\n\nunknown: 1\npool: p\n", "pool: p\nvms:\n  a: {}\n\n  # late\n\nunknown: 1\n"),
    ],
)
def test_scalars_and_shapes(text: str, wanted: str) -> None:
    assert laid_out(text.encode(), "x") == wanted
    assert laid_out(wanted.encode(), "x") == wanted
    assert max(map(len, wanted.splitlines())) <= WIDTH


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: &b c\nd: *b\n", "write the value out"),
        ("[a]\n", "which is a map"),
        ("a: b\n... # file: c\nd: e\n", "by itself"),
    ],
)
def test_what_cannot_be_kept_is_refused(text: str, match: str) -> None:
    with pytest.raises(NotKept, match=match):
        laid_out(text.encode(), "x")
    with pytest.raises(TopologyErrors, match="not YAML"):
        laid_out(b"a: [", "x")


def test_what_would_say_something_else_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for change in (lambda root, *_, **__: root.items.pop(), lambda root, *_, **__: root.items[0].behind.clear()):
        monkeypatch.setattr(layout, "_order", change)
        with pytest.raises(NotKept, match="without changing"):
            laid_out(b"a: b # kept\nc: d\n", "x")


def test_the_command(tmp_path: Path, capsys: Capture) -> None:
    file, link = tmp_path / "pool.vnet.yaml", tmp_path / "link.vnet.yaml"
    file.write_text(UNTIDY)
    file.chmod(0o640)
    link.symlink_to(file)
    assert main.run(["fmt", "--check", str(file)]) == ExitCode.CHANGES
    assert main.run(["fmt", "--diff", str(file)]) == ExitCode.CHANGES
    printed = capsys.readouterr()
    assert "would change" in printed.err
    assert '\n-apiVersion: "vnet/v1"\n' in printed.out
    assert file.read_text() == UNTIDY, "neither changes anything"
    assert main.run(["fmt", str(link)]) == ExitCode.OK
    assert (file.read_text(), file.stat().st_mode & 0o777, link.is_symlink()) == (TIDY, 0o640, True)
    assert main.run(["fmt", "--check", "--diff", str(file), str(link)]) == ExitCode.OK
    assert sorted(tmp_path.iterdir()) == [link, file]
    file.write_text("a: &b c\n")
    assert main.run(["fmt", str(file)]) == ExitCode.INVALID_INPUT
    assert f"{file}:1: what '&'" in capsys.readouterr().err
    assert main.run(["fmt", str(tmp_path / "none")]) == ExitCode.INVALID_INPUT
