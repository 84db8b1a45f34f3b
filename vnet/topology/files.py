"""The files of a document as one text: a file, and those that it includes."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from vnet.grammar.nodes import ListNode, Node, entry_of
from vnet.grammar.source import Source
from vnet.topology.document import INCLUDED
from vnet.topology.yaml_tree import FILE_MARK, MAX_BYTES, decode, parse

INCLUDE = re.compile(rb"""(^|[{,\s"'])include["']?\s*:""", re.MULTILINE)


def read_file(path: Path | str, limit: int = MAX_BYTES) -> bytes:
    """A document's file as `load` takes it, with the files that it includes after it. limit: in bytes, of all of them; one more is read.

    Raises OSError for a file that cannot be read, TopologyErrors for an `include` that names none.
    """
    with Path(path).open("rb") as opened:
        return included(opened.read(limit + 1), str(path), Path(path).parent, limit)


def included(data: bytes, filename: str, directory: Path, limit: int = MAX_BYTES) -> bytes:
    """The same of a text that was read already. directory: where its paths begin."""
    if INCLUDE.search(data) is None or len(data) > limit:
        return data  # most documents include nothing, and need not be parsed twice
    source = decode(data, filename)
    found = entry_of(parse(source), "include")
    if found is None:
        return data
    parts, size = [data], len(data)
    for name in _names(found[1], source, directory):
        with (directory / name).open("rb") as opened:
            part = opened.read(limit + 1 - size)
        size += len(part)
        parts += [f"\n{FILE_MARK}{name}\n".encode(), part]
    return b"".join(parts)


def _names(node: Node, source: Source, directory: Path) -> list[str]:
    """The paths of the files, each once, those of one pattern in the order of their names. Raises TopologyErrors."""
    patterns, names = INCLUDED.read(node, source), dict[str, None]()
    source.finish()
    items = node.items if isinstance(node, ListNode) else ()
    for pattern, item in zip(patterns, items, strict=True):
        matched = (
            sorted(glob.glob(pattern, root_dir=directory, recursive=True)) if glob.has_magic(pattern) else [pattern]
        )
        matched = [name for name in matched if (directory / name).is_file()]
        if not matched:
            source.add("no-file", f"there is no file {pattern}", item, f"paths begin at {directory.resolve()}")
        names |= dict.fromkeys(name for name in matched if "\n" not in name)
    source.finish()
    return [*names]
