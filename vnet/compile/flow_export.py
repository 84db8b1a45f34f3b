"""What a host tells collectors of flows: what passes its br-int, by the bridge's own export, and frames of single VIFs, by the action sample.

One rule: a VIF's frames are sampled by the flows that count them for its account, so each is told of once as sent and once as got, by the host where the VIF runs.
Each VIF has a set of collectors of its own (Flow_Sample_Collector_Set in ovs-vswitchd.conf.db(5)): the text that IPFIX puts into each record is the set's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ovsctl import vswitch
from ovsctl.openflow import Sample, SampleDirection
from vnet.compile.flows import Actions
from vnet.objects import FlowCollector, FlowProtocol, Vif
from vnet.objects.flow_collector import MAX_SAMPLE_OF_VIFS
from vnet.objects.labels import Labels, labels_of

SAMPLE = 400  # one frame of so many, as Open vSwitch has it (ovs-vswitchd.conf.db(5))
ACTIVE_S = 60  # seconds after which a flow that goes on is told of
MAX_CACHED, MAX_CACHED_OF_VIF = 4096, 512  # flows that wait for that
MAX_OBSERVER_BYTES = 254  # of virtual_obs_id
OF_VIF = 0x7600_0000  # before an ofport: the number of the VIF's set, and of its observation domain (RFC 7011 §3.1)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a VIF's frames are told of. sample: one frame of so many. observer: the names in each record."""

    targets: frozenset[str]
    sample: int
    observer: str


@lru_cache(maxsize=4096)  # an agent asks at every turn, of every VIF of the host
def sampling_of(me: str, vif: Vif, of_network: Labels, collectors: tuple[FlowCollector, ...]) -> Sampling | None:
    """How a VIF that runs on host `me` is told of, None if no collector is of it. vif: in all groups that judge it. of_network: its network's labels."""
    labels = labels_of(vif, of_network)
    mine = [it for it in collectors if it.selects(vif.id, vif.network, vif.groups, labels)]
    if not mine:
        return None
    words = [f"vif={vif.id}"]
    words += [f"vm={vif.vm}"] if vif.vm is not None else []
    words += [f"network={vif.network}", f"host={me}", *(f"group={group}" for group in vif.groups)]
    return Sampling(frozenset(it.to for it in mine), _most(mine) or SAMPLE, _fitting(words))


def _fitting(words: Iterable[str]) -> str:
    """The first words of all that fit a record together. A VIF's id always does (VIF_ID in limits.py)."""
    found = ""
    for word in words:
        longer = f"{found} {word}".lstrip()
        if len(longer.encode()) > MAX_OBSERVER_BYTES:
            break
        found = longer
    return found


def _most(collectors: Collection[FlowCollector]) -> int | None:
    """What the one of several that wants most frames says: one frame of so many."""
    wanted = [collector.sample for collector in collectors]
    return min((one for one in wanted if one is not None and (None not in wanted or one < SAMPLE)), default=None)


def sampled(sampling: Sampling | None, ofport: int, direction: SampleDirection) -> Actions:
    """What a flow does besides that counts a VIF's frames."""
    if sampling is None:
        return ()
    return (Sample(MAX_SAMPLE_OF_VIFS // sampling.sample, OF_VIF | ofport, OF_VIF | ofport, direction=direction),)


def sample_sets(samplings: Iterable[tuple[int, Sampling]]) -> tuple[vswitch.SampleSet, ...]:
    """The sets of collectors of VIFs, by their ofports."""
    return tuple(
        vswitch.SampleSet(
            OF_VIF | ofport,
            vswitch.Ipfix(
                sampling.targets,
                cache_active_timeout=ACTIVE_S,
                cache_max_flows=MAX_CACHED_OF_VIF,
                other_config={"virtual_obs_id": sampling.observer},
            ),
        )
        for ofport, sampling in samplings
    )


def exporting(me: str, collectors: Iterable[FlowCollector]) -> dict[str, Any]:
    """The columns of br-int by which it tells collectors of its frames. A bridge has one row for each protocol, with all collectors of it: of
    several, the one that wants most frames says how many. me: the host, which IPFIX names in each record."""
    found: dict[str, Any] = {}
    for protocol in FlowProtocol:
        mine = [collector for collector in collectors if collector.protocol is protocol and not collector.of]
        if not mine:
            continue
        targets = frozenset(collector.to for collector in mine)
        sample = _most(mine) or SAMPLE
        match protocol:
            case FlowProtocol.NETFLOW:
                found["netflow"] = vswitch.NetFlow(targets, active_timeout=ACTIVE_S)
            case FlowProtocol.SFLOW:
                found["sflow"] = vswitch.Sflow(targets, sampling=sample, polling=ACTIVE_S)
            case FlowProtocol.IPFIX:
                found["ipfix"] = vswitch.Ipfix(
                    targets,
                    sampling=sample,
                    cache_active_timeout=ACTIVE_S,
                    cache_max_flows=MAX_CACHED,
                    # A frame is told of as it comes in alone, as by NetFlow and sFlow; as it leaves, too, it would be in two records. Open vSwitch
                    # reads the option the other way round (vswitchd/bridge.c, bridge_configure_ipfix): unset, or "false", has it told twice.
                    other_config={"virtual_obs_id": me, "enable-output-sampling": "true"},
                )
    return found
