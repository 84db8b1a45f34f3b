"""Names in the source: a class name is defined once, and identifiers are nouns of the field.

One rule: both lists below are debts. They may shrink and never grow.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("vnet", "ovsctl")
FORBIDDEN = frozenset({"who", "what", "where", "why", "kind", "one", "said", "told"})

# Class names that are still defined in several modules.
DEFINED_TWICE = frozenset(
    [
        "Action",
        "BondMode",
        "Call",
        "Change",
        "Client",
        "Column",
        "Conflict",
        "Connection",
        "ConnectionLost",
        "Controller",
        "DecodeError",
        "Delete",
        "Exit",
        "Framer",
        "Insert",
        "Invalid",
        "Map",
        "NotFound",
        "Note",
        "Options",
        "Owner",
        "Plan",
        "Port",
        "Refused",
        "Reply",
        "Role",
        "Row",
        "Session",
        "Source",
        "Stage",
        "Table",
        "Tables",
        "Text",
        "TimedOut",
        "Unauthorized",
        "Unit",
        "Unreachable",
        "Update",
    ]
)

# Forbidden identifiers that are left, by package: RFC 7047's `where`, words of the API, and Kind, which is a type.
FORBIDDEN_LEFT = {
    "ovsctl.ovsdb": 12,
    "vnet.api": 10,
    "vnet.client": 1,
    "vnet.controller": 3,
    "vnet.db": 3,
    "vnet.grammar": 5,
    "vnet.objects": 1,
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Each module's dotted name and its syntax tree."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text())


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def identifiers(module: str, tree: ast.Module) -> Iterator[str]:
    """The module's own name, and its classes, functions, parameters, fields and attributes."""
    yield module.rpartition(".")[2]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
            yield from (item.target.id for item in node.body if is_field(item))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def is_field(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)


def duplicates(defined: dict[str, set[str]]) -> dict[str, set[str]]:
    return {name: modules for name, modules in defined.items() if len(modules) > 1}


def test_a_class_name_is_defined_in_one_module() -> None:
    defined: dict[str, set[str]] = defaultdict(set)
    for module, tree in sources():
        if module == "vnet.api.__init__":
            continue  # its structs are objects as JSON has them, and have the objects' names
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                defined[node.name].add(module)
    found = {name: sorted(modules) for name, modules in duplicates(defined).items() if name not in DEFINED_TWICE}
    assert not found, f"rename all but one of each: {found}"


def test_identifiers_are_nouns_of_the_field() -> None:
    left: dict[str, Counter[str]] = defaultdict(Counter)
    for module, tree in sources():
        for name in identifiers(module, tree):
            if name.strip("_") in FORBIDDEN:
                left[package_of(module)][f"{module}: {name}"] += 1
    for package, found in left.items():
        count, most = found.total(), FORBIDDEN_LEFT.get(package, 0)
        assert count <= most, f"{package} has {count} forbidden identifiers, {most} are left to mend: {dict(found)}"


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
    assert list(identifiers("package.module", ast.parse(text))) == ["module", *names]
