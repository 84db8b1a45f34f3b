"""Incremental compilation: each flow comes from one source, and a change compiles the sources again that it concerns.

One rule: a source is compiled again when the object that it is of changes, the object's network, or an input that its builder read.
Nobody writes dependencies down, so none can be missing. A source that read its inputs as a whole is compiled at every change, and counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from ovsctl.openflow import Flow, Meter
from vnet.compile.dependencies import Dependencies
from vnet.compile.features import FEATURES, Feature, FlowSource
from vnet.compile.flows import Entries
from vnet.compile.inputs import EVERYTHING, HostInputs, Input, InputKey
from vnet.compile.pipeline import Category
from vnet.compile.view import HostView


class SourceChange(NamedTuple):
    """One source's flows and meters before and after."""

    source: FlowSource
    old: Entries
    new: Entries


def compile_flows(view: HostView, features: Sequence[Feature] = FEATURES) -> dict[FlowSource, Entries]:
    """The flows of every source, compiled at once, in order of their sources. Sources without flows are left out."""
    found = sorted({source: feature for feature in features for source in _sources(view, feature)}.items())
    compiled = {source: feature.flows(view, source.name, source.network) for source, feature in found}
    return {source: flows for source, flows in compiled.items() if flows}


def _sources(view: HostView, feature: Feature) -> set[FlowSource]:
    return {FlowSource(feature.category, *key) for of in feature.of for key in view.objects(of)}


class Compiler:
    """A host's inputs and its flows. `compile` returns the sources whose flows changed since it was last called.

    recomputed: how many sources were compiled. full: how many of those only because they read their inputs as a whole, by category.
    on_failure: called with a source that raised; its flows stay as they are till an input that it read changes. None: it is raised.
    failed: the sources that raised when they were last compiled. kernel: the host's datapath is the kernel's.
    """

    def __init__(
        self,
        me: str,
        features: Sequence[Feature] = FEATURES,
        on_failure: Callable[[FlowSource, Exception], None] | None = None,
        *,
        kernel: bool = False,
    ) -> None:
        self.inputs = HostInputs(me, kernel=kernel)
        self.view = HostView(self.inputs)
        self.flows: dict[FlowSource, Entries] = {}
        self.failed: dict[FlowSource, str] = {}
        self._on_failure = on_failure
        self.recomputed = 0
        self.full: Counter[str] = Counter()
        self._features = {feature.category: feature for feature in features}
        self._of: dict[Input, list[Feature]] = defaultdict(list)
        for feature in features:
            for of in feature.of:
                self._of[of].append(feature)
        self._dependencies = Dependencies()
        self._reads: set[InputKey] = set()
        self._recorded = self.view.recorded(self._reads)
        self._revision = 0
        self._put_off: dict[FlowSource, None] = {}  # groups whose rules are still to be compiled, in order
        self._held: dict[FlowSource, SourceChange] = {}  # of groups, to be returned together with those

    def compile(self, most: int | None = None) -> list[SourceChange]:
        """The sources whose flows changed, with their flows before and after, in order of the sources.

        most: flows after which no further rules of groups are compiled by this call. `unfinished` then says that there are more. What is
        returned holds together: rules that change alone are returned once all of them are compiled, and other changes
        pass before them, unless they came together or are of a VIF whose rules no call has returned yet.
        """
        dirty = self._dirty()
        rules = {source for source in dirty if source.category is Category.GROUP}
        changes = self._compile_all(dirty - rules)
        self._put_off.update(dict.fromkeys(sorted(rules)))
        if most is not None and changes and not rules and not self._lack_rules(changes):
            return changes
        while self._put_off and (changes or most is None or most > 0):
            source = next(iter(self._put_off))
            del self._put_off[source]
            self._hold(self._compile_all((source,)))
            most = most - len(self.flows.get(source, ())) if most is not None else None
        if self._put_off:
            return []
        held, self._held = self._held, {}
        return sorted([*changes, *(change for change in held.values() if change.old != change.new)])

    @property
    def unfinished(self) -> bool:
        """Whether another call is needed for all that has changed."""
        return bool(self._put_off)

    def _compile_all(self, sources: Collection[FlowSource]) -> list[SourceChange]:
        self.recomputed += len(sources)
        return [change for source in sorted(sources) if (change := self._compile(source)) is not None]

    def _hold(self, changes: Iterable[SourceChange]) -> None:
        for change in changes:
            before = self._held.get(change.source)
            self._held[change.source] = change if before is None else change._replace(old=before.old)

    def _lack_rules(self, changes: Iterable[SourceChange]) -> bool:
        """Whether sources that changed count on the rules of a group of which nothing was returned yet."""
        unknown = {source for source in self._put_off if source not in self.flows}
        unknown |= {source for source, change in self._held.items() if not change.old}
        keys = {(Input.GROUP, source.name, source.network) for source in unknown}
        return bool(keys) and any(keys & self._dependencies.keys(change.source) for change in changes)

    def origin(self, source: FlowSource) -> str:
        """A source in words."""
        return self._features[source.category].origin.format(source.name)

    def _dirty(self) -> set[FlowSource]:
        found: set[FlowSource] = set()
        for key in self.inputs.take_changed():
            of, name, network = key
            found.update(FlowSource(feature.category, name, network) for feature in self._of.get(of, ()))
            if of is Input.NETWORK:
                found.update(self._on_network(name))
            found.update(self._dependencies.readers(key))
        if self._revision != self.inputs.revision:
            self._revision = self.inputs.revision
            coarse = set(self._dependencies.readers(EVERYTHING)) - found
            self.full.update(source.category.name.lower() for source in coarse)
            found |= coarse
        return found

    def _on_network(self, network: str) -> Iterator[FlowSource]:
        for of, features in self._of.items():
            for name in self.inputs.objects_on(of, network):
                yield from (FlowSource(feature.category, name, network) for feature in features)

    def _compile(self, source: FlowSource) -> SourceChange | None:
        feature = self._features[source.category]
        self._reads.clear()
        old = self.flows.get(source, ())
        self.failed.pop(source, None)
        try:
            new = feature.flows(self._recorded, source.name, source.network)
        except Exception as error:
            if self._on_failure is None:
                raise
            self.failed[source] = f"{type(error).__name__}: {error}"
            self._on_failure(source, error)
            new = old
        for of in feature.of:
            self._reads.discard((of, source.name, source.network))
        self._reads.discard((Input.NETWORK, source.network, ""))
        self._dependencies.record(source, frozenset(self._reads))
        if old == new:
            return None
        if new:
            self.flows[source] = new
        else:
            del self.flows[source]
        return SourceChange(source, old, new)


def flat(compiled: dict[FlowSource, Entries]) -> list[Flow]:
    """The flows of all sources together."""
    return [entry for entries in compiled.values() for entry in entries if isinstance(entry, Flow)]


def meters_of(compiled: dict[FlowSource, Entries]) -> list[Meter]:
    """The meters of all sources together."""
    return [entry for entries in compiled.values() for entry in entries if isinstance(entry, Meter)]
