"""A controller's metrics: sums whose number of series is bounded, and whose making lets everything else go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from tests.authorities import TestAuthority
from tests.vnet.agent.test_metrics import Clock, series, well_formed
from tests.vnet.controller.pools import bound, pool, vif
from vnet.controller.metrics import MAX_KINDS, OTHER, SLICE, ControllerMeasures, PoolMetrics, sums_of
from vnet.objects import Event
from vnet.util.certificate_ends import certificate_end_s

MANY = 4 * SLICE + 1


async def test_a_scrape_of_many_vifs_lets_the_loop_turn_and_scrapes_at_once_share_it() -> None:
    vifs = [vif(f"vm{number}/0", number % 200, host="xen1") for number in range(MANY)]
    view = pool(vifs, [bound(it, "xen1") for it in vifs[:10]])
    turns, asked = Counter[str](), Counter[str]()

    async def others() -> None:
        while True:
            turns["of others"] += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(others())
    sums = await sums_of(view)
    assert turns["of others"] >= MANY // SLICE
    busy.cancel()
    assert (sums.states["ready"], sums.states["defined"]) == (10, MANY - 10)
    assert sums.networks == {"tenant": MANY}

    def seen() -> object:
        asked["view"] += 1
        return view

    clock = Clock()
    metrics = PoolMetrics(seen, ControllerMeasures(), clock=clock)  # type: ignore[arg-type]
    texts = await asyncio.gather(*(metrics.text() for _ in range(10)))
    assert (len({*texts}), asked["view"]) == (1, 1)
    found = series(texts[0])
    assert well_formed(texts[0])
    assert found['vnet_pool_vifs{state="ready"}'] == 10
    assert found['vnet_host_vifs{host="xen1"}'] == 10
    assert found['vnet_host_up{host="xen2"}'] == 1
    assert not any("vm1/0" in name for name in found)
    clock.now_s = 60.0
    await metrics.text()
    assert asked["view"] == 2


def test_kinds_of_events_that_hosts_make_up_are_bounded() -> None:
    measures = ControllerMeasures()
    for number in range(3 * MAX_KINDS):
        measures.event(Event(1, f"k{number}", "", "xen1"))
    assert len(measures.events) == MAX_KINDS + 1
    assert measures.events[OTHER] == 2 * MAX_KINDS


def test_the_end_of_a_certificate_is_read_as_cryptography_reads_it(tmp_path: Path) -> None:
    from cryptography import x509

    authority = TestAuthority(tmp_path)
    made = authority.server()
    for path in (made.certificate, made.ca_certificate):
        expected = x509.load_pem_x509_certificates(Path(path).read_bytes())[0].not_valid_after_utc.timestamp()
        assert certificate_end_s(Path(path)) == expected
    broken = tmp_path / "broken.pem"
    for text in ("", "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n", "no certificate"):
        broken.write_text(text)
        assert certificate_end_s(broken) is None
