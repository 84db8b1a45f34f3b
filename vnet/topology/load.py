"""Bytes to a valid document. One rule: whole or not at all, and then with every reason."""

from __future__ import annotations

from vnet.topology.check import check
from vnet.topology.document import API_VERSION, Document
from vnet.topology.grammar import Failed
from vnet.topology.record import RecordOf, keys_of
from vnet.topology.source import Source
from vnet.topology.tree import Map, decode, describe, parse, place_of
from vnet.util.gc_pause import collector_held

_DOCUMENT = RecordOf(Document)


def load(data: bytes, filename: str) -> Document:
    """The document that a file's bytes say; `filename` is only for messages.

    Raises TopologyErrors with all that is wrong with it: text (size, encoding, YAML), grammar, then references and clashes.
    """
    with collector_held():
        source = decode(data, filename)
        root = parse(source)
        if not isinstance(root, Map):
            source.stop("wrong-type", f"a document is a map, found {describe(root)}", place_of(root))
        _check_version(root, source)
        values, _ = _DOCUMENT.values(root, source)
        # Where the pool's name is wrong, the rest is checked all the same; the document is refused in the end.
        document = Document(**{"api_version": API_VERSION, "pool": "pool", **values, "source": source})
        check(document, source)
        source.finish()
        return document


def _check_version(root: Map, source: Source) -> None:
    """Stop at another version's document: what this grammar says of it would only mislead."""
    kind = keys_of(Document)["apiVersion"][1].kind
    for name, value in root.entries:
        if name.text == "apiVersion" and isinstance(kind.read(value, source), Failed):
            source.finish()
