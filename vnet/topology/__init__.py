"""The topology document: reading it with every error at once, the pool that it wants, its JSON Schema and its reference."""

from vnet.grammar.problems import Place, Problem, TopologyErrors
from vnet.topology.desired import desired_state, load, parse_document
from vnet.topology.document import API_VERSION, Document
from vnet.topology.files import read_file

__all__ = [
    "API_VERSION",
    "Document",
    "Place",
    "Problem",
    "TopologyErrors",
    "desired_state",
    "load",
    "parse_document",
    "read_file",
]
