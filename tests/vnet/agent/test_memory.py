"""What an agent remembers of VIFs that are gone: nothing, but for caches that are bounded."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import _lru_cache_wrapper

import pytest

from ovsctl.openflow import match
from ovsctl.ovsdb import Delete
from tests.polling import until
from tests.vnet.agent.pool import TENANT, pool_of, vif
from vnet.objects import Direction, Protocol, Rule, SecurityGroup

pytestmark = pytest.mark.usefixtures("ovs")

PLUGS = 15
GONE = re.compile(r"gone(\d+)/0")


def empty_caches() -> None:
    for cache in (match._known, match._met, match._decoded):
        assert len(cache) < match._CACHE_LIMIT
        cache.clear()
    for found in gc.get_objects():
        if isinstance(found, _lru_cache_wrapper):
            found.cache_clear()
    gc.collect()


def texts(value: object) -> Iterator[str]:
    """The strings that an object refers to, itself or by values that the collector need not follow."""
    for referent in gc.get_referents(value):
        if isinstance(referent, str):
            yield referent
        elif not gc.is_tracked(referent):
            yield from texts(referent)


def remembered() -> set[int]:
    """The numbers of the VIFs that any object of this process names."""
    empty_caches()
    found = (GONE.fullmatch(text) for value in gc.get_objects() for text in texts(value))
    return {int(it[1]) for it in found if it is not None}


async def test_nothing_is_remembered_of_vifs_that_were_unplugged() -> None:
    """1,000 plugs and unplugs once added 3 MB to an agent: caches of matches, which end, and a few hundred bytes each that did not."""
    rules = (Rule("http", Direction.INGRESS, protocol=Protocol.TCP), Rule("peers", Direction.EGRESS, remote=("web",)))
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(SecurityGroup("web", 1, rules=rules))
        for number in range(1, PLUGS + 1):
            id = f"gone{number}/0"
            await pool.insert(replace(vif(number, groups=("web",)), id=id))
            host.add_port(f"p{number}", id)
            await pool.wait_ready(id, "xen1")
            host.switch.server.vsctl("del-port", f"p{number}")
            await until(lambda id=id: id not in host.agent.pool.mine, "its binding is gone")  # type: ignore[misc]
            await pool.client.transact(Delete("Vif", (("id", "==", id),)))
            await until(lambda id=id: id not in host.agent.compiler.view.vifs, "its row is gone")  # type: ignore[misc]
        # A job that waits for more may still hold what it did last.
        await until(lambda: remembered() <= {PLUGS}, "nothing of the others is left")
