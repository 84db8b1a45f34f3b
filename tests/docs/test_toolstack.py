"""docs/toolstack.md, executed against a pool with real agents."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import pytest

from tests.docs.test_documents import DOCS, agrees, blocks, compiled
from tests.labs import new_name
from tests.polling import wait_until
from vnet.client import Client
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

QUICKSTART = DOCS.parent / "topologies" / "quickstart.vnet.yaml"


@pytest.fixture
def lab(ovs: None) -> Iterator[Lab]:
    text = QUICKSTART.read_bytes()
    pool = desired_state(load(text, QUICKSTART.name), PoolState())
    made = Lab.up(pool, name=new_name(), driver=Driver.DUMMY, daemons=True, document=text.decode())
    try:
        made.start("web1")
        with Client(f"unix:{made.daemons.controller_socket}") as client:
            wait_until(lambda: client.vif("web1/0").place.state == "ready", "web1 to be ready")
        yield made
    finally:
        made.down()


def test_the_guide_is_true(lab: Lab) -> None:
    guide = DOCS / "toolstack.md"
    found = blocks(guide)
    assert len(found) >= 5
    names: dict[str, object] = {}
    for line, written, output in found:
        code = written.replace("unix:/run/vnet/controller.sock", f"unix:{lab.daemons.controller_socket}")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compiled(code, guide, line), names)
        assert agrees(output or "", said.getvalue()), f"{guide}:{line}: {said.getvalue()}"
