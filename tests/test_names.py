"""Names in the source: a class name is defined once, and identifiers are nouns of the field.

One rule: the list below is of words that others gave. It may shrink and never grow.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("vnet", "ovsctl")
FORBIDDEN = frozenset({"who", "what", "where", "why", "kind", "one", "said", "told"})

# Identifiers that are words of RFC 7047 (`where`, sections 5.2 and 4.1.5), of the REST API and, for an event, of the database too.
OTHERS_WORDS = Counter(
    {
        "ovsctl.ovsdb.client: where": 2,
        "ovsctl.ovsdb.operations: where": 6,
        "ovsctl.ovsdb.replica: where": 4,
        "vnet.api.__init__: kind": 3,
        "vnet.api.__init__: what": 1,
        "vnet.api.__init__: where": 3,
        "vnet.api.__init__: why": 3,
        "vnet.api.errors: where": 2,
        "vnet.objects.binding: kind": 1,
    }
)


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Each module's dotted name and its syntax tree."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text())


def identifiers(module: str, nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The module's own name, and its classes, functions, parameters, fields and attributes."""
    yield module.rpartition(".")[2]
    for node in nodes:
        match node:
            case ast.ClassDef():
                yield node.name
                yield from (item.target.id for item in node.body if is_field(item))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr


def is_field(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)


def duplicates(defined: dict[str, set[str]]) -> dict[str, set[str]]:
    return {name: modules for name, modules in defined.items() if len(modules) > 1}


@pytest.fixture(scope="module")
def named() -> tuple[dict[str, set[str]], Counter[str]]:
    """The modules of each class name, and the forbidden identifiers: the sources are parsed once."""
    defined: dict[str, set[str]] = defaultdict(set)
    forbidden: Counter[str] = Counter()
    for module, tree in sources():
        nodes = [*ast.walk(tree)]
        # The structs of vnet.api are objects as JSON has them, and have the objects' names.
        for name in class_names(nodes) if module != "vnet.api.__init__" else ():
            defined[name].add(module)
        forbidden.update(f"{module}: {name}" for name in identifiers(module, nodes) if name.strip("_") in FORBIDDEN)
    return defined, forbidden


def class_names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    return (node.name for node in nodes if isinstance(node, ast.ClassDef))


def test_a_class_name_is_defined_in_one_module(named: tuple[dict[str, set[str]], object]) -> None:
    found = {name: sorted(modules) for name, modules in duplicates(named[0]).items()}
    assert not found, f"rename all but one of each: {found}"


def test_identifiers_are_nouns_of_the_field(named: tuple[object, Counter[str]]) -> None:
    found = named[1]
    assert not found - OTHERS_WORDS, "rename these"
    assert not OTHERS_WORDS - found, "they are gone: take them off the list"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f(what): ...", ["f", "what"]),
        ("class A:\n    why: str = ''", ["A", "why"]),
        ("self.kind = 1", ["kind"]),
        ("lambda one: one", ["one"]),
    ],
)
def test_identifiers_of_a_module(text: str, names: list[str]) -> None:
    assert list(identifiers("package.module", ast.walk(ast.parse(text)))) == ["module", *names]
