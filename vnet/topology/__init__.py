"""The topology document: what it may say, loading it with every error at once, its JSON Schema and its reference."""

from vnet.objects import Protocol
from vnet.topology.document import (
    API_VERSION,
    Defaults,
    Document,
    Expectation,
    HostSpec,
    NetworkSpec,
    Reach,
    SubnetSpec,
    Underlay,
    UplinkSpec,
    VifSpec,
    VmSpec,
)
from vnet.topology.errors import Place, Problem, TopologyErrors
from vnet.topology.load import load

__all__ = [
    "API_VERSION",
    "Defaults",
    "Document",
    "Expectation",
    "HostSpec",
    "NetworkSpec",
    "Place",
    "Problem",
    "Protocol",
    "Reach",
    "SubnetSpec",
    "TopologyErrors",
    "Underlay",
    "UplinkSpec",
    "VifSpec",
    "VmSpec",
    "load",
]
