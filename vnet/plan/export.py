"""A pool as a document that, loaded and planned again, changes nothing. The toolstack's objects stay anyway, and are left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from yaml.cyaml import CSafeDumper

from vnet.grammar.declare import attrs_of, plain
from vnet.objects import Owner, PoolState, Rule, SecurityGroup, Vif, Vm
from vnet.objects.state import CONFIGURED
from vnet.objects.words import is_range
from vnet.topology import API_VERSION, Document, parse_document
from vnet.util.suggest import plural


class NothingToExport(ValueError):
    """A database where no document was ever applied: it has no pool to name."""


class _Flow(dict[str, Any]):
    """A map on one line."""


class _Dumper(CSafeDumper):
    """A text is quoted where YAML 1.1 or 1.2 could take it for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: _Dumper, text: str) -> Any:
    plain_to_all = (text[:1].isalpha() and ":" not in text) or is_range(
        text
    )  # and quoted all the same where it is a word such as `no`
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain_to_all else '"')


def _list_node(dumper: _Dumper, items: list[Any]) -> Any:
    one_line = not any(isinstance(item, dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=one_line)


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(list, _list_node)
_Dumper.add_representer(
    _Flow, lambda dumper, words: dumper.represent_mapping("tag:yaml.org,2002:map", words, flow_style=True)
)


def export_document(state: PoolState) -> str:
    """The document, with every id that was allocated written out, and in a comment what it leaves out. Raises NothingToExport without a pool."""
    if state.pool is None:
        raise NothingToExport("no document was ever applied to this pool")
    pool = plain(state.pool, document=True)
    parts: list[dict[str, Any]] = [{"apiVersion": API_VERSION, "pool": pool.pop("pool")}]
    parts += [{key: _Flow(value)} for key, value in pool.items()]
    if "underlay" not in pool:
        parts.append({"underlay": _Flow(mtu=state.pool.underlay_mtu)})
    for declared in CONFIGURED:
        noun = declared.NOUN
        if noun.parent:
            continue
        ours = {n: v for n, v in sorted(getattr(state, noun.state).items()) if v.owner is Owner.DOCUMENT}
        if noun.listed:
            section: Any = [_Flow(_map(value, state)) for value in ours.values()]
        else:
            section = {name: _one_line(_map(value, state)) for name, value in ours.items()}
        if section:
            parts.append({noun.plural: section})
    return _left_out(state) + "\n".join(map(_text, parts))


def document_of(state: PoolState, name: str) -> Document:
    """A pool that runs as a document that asks of it, with the places that `export_document` writes, and expectations by name: a database has no
    order. Raises NothingToExport, TopologyErrors."""
    expectations = dict(sorted(state.expectations.items()))
    return replace(
        parse_document(export_document(state).encode(), name), state=replace(state, expectations=expectations)
    )


def _left_out(state: PoolState) -> str:
    """A comment on the toolstack's objects; empty if there are none."""
    counts = [
        f"{count} {noun.text if count == 1 else plural(noun.text)}"
        for noun in (declared.NOUN for declared in CONFIGURED)
        if (count := sum(value.owner is Owner.TOOLSTACK for value in getattr(state, noun.state).values()))
    ]
    left = "# Left out, since they are the toolstack's and stay when this is applied: "
    return f"{left}{', '.join(counts)}. 'vnet pool backup' has everything.\n" if counts else ""


def _map(value: Any, state: PoolState) -> dict[str, Any]:
    """An object in the document's words."""
    words = plain(value, document=True)
    if isinstance(value, SecurityGroup) and value.rules:
        words["rules"] = [_Flow(_rule(rule)) for rule in value.rules]
    if "uplinks" in words:
        words["uplinks"] = {uplink.name: _Flow(_without_name(plain(uplink, document=True))) for uplink in value.uplinks}
    if isinstance(value, Vm):
        vifs = [vif for vif in state.vifs.values() if vif.vm == value.name and vif.owner is Owner.DOCUMENT]
        if vifs:
            words["vifs"] = [_Flow(_vif(vif, state)) for vif in sorted(vifs, key=lambda vif: vif.index)]
    return words


def _without_name(words: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in words.items() if key != "name"}


def _rule(rule: Rule) -> dict[str, Any]:
    words = plain(rule, document=True)
    order = ("name", "direction", "protocol", "icmp", "ports", "remote", "action")
    shown = {**words, "remote": attrs_of(Rule)["remote"].type.plain(rule.remote), "action": rule.action.value}
    return {
        key: shown[key] for key in dict.fromkeys((*order, *shown)) if key in shown
    }  # a field that is not named here is last


def _vif(vif: Vif, state: PoolState) -> dict[str, Any]:
    words = plain(vif, document=True)
    id = words.pop("id")
    if id != f"{vif.vm}/{vif.index}":
        words["id"] = id
    words = {"network": words.pop("network"), "mac": words.pop("mac"), "addresses": words.pop("addresses", []), **words}
    mode = attrs_of(Vif)["locking_mode"]
    words.pop("locking-mode", None)
    if state.pool is not None and vif.locking_mode is not state.pool.locking_mode:
        words["locking-mode"] = mode.type.plain(vif.locking_mode)
    return words


def _one_line(words: dict[str, Any]) -> dict[str, Any]:
    """A map on one line, but for one that holds maps of its own."""
    nested = any(isinstance(value, dict) and not isinstance(value, _Flow) for value in words.values())
    nested = nested or any(isinstance(v, list) and any(isinstance(i, dict) for i in v) for v in words.values())
    return {k: _Flow(v) if k == "default" else v for k, v in words.items()} if nested else _Flow(words)


def _text(part: dict[str, Any]) -> str:
    text: str = yaml.dump(part, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text
