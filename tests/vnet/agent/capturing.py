"""A capture as a controller has it, without one."""

from __future__ import annotations

from collections.abc import Sequence

from ovsctl.ovsdb import Delete, Insert, Select, Update
from tests.polling import until
from tests.vnet.agent.pool import PoolUnderTest, now_ms
from vnet.agent import vif_capture
from vnet.db.captures import CapturedVif, CapturePlan, CaptureReport, columns_of, decode_report

VIFS = (CapturedVif("vm1/0", "tenant"), CapturedVif("vm2/0", "tenant"))


class Asking:
    """A capture as its controller has it on xen1, without one: it beats and takes only when told to."""

    def __init__(
        self, pool: PoolUnderTest, id: str = "c", vifs: Sequence[CapturedVif] = VIFS, filter: str = ""
    ) -> None:
        self.pool, self.id = pool, id
        self.plan = CapturePlan(list(vifs), filter)
        self.where = (("id", "==", id),)
        self.reports: list[CaptureReport] = []
        self.number = 0

    async def begin(self) -> None:
        row = dict(columns_of(self.id, "xen1", now_ms(), self.plan, 1))
        await self.pool.client.transact(Insert("Capture", row))

    async def take(self) -> CaptureReport:
        """The next report, which is taken."""

        async def there() -> CaptureReport | None:
            (rows,) = await self.pool.client.transact(Select("Capture", self.where, ("number", "report")))
            if not rows or rows[0]["number"] <= self.number:
                return None
            self.number = rows[0]["number"]
            return decode_report(rows[0]["report"])

        found = await until(there, "a report")
        assert isinstance(found, CaptureReport)
        self.reports.append(found)
        await self.pool.client.transact(Update("Capture", self.where, {"taken": self.number, "beat": self.number + 1}))
        return found

    async def measured(self) -> None:
        for _ in range(vif_capture.MEASURED):
            assert (await self.take()).frames == ""

    async def end(self) -> None:
        await self.pool.client.transact(Delete("Capture", self.where))
