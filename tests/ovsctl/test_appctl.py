"""ovs-appctl without a process, against a real ovs-vswitchd and against peers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.appctl import (
    Appctl,
    AppctlError,
    BadReply,
    BondMember,
    CommandRefused,
    CommandTimedOut,
    DaemonUnreachable,
    FdbEntry,
    call_sync,
    control_socket,
    parse_bonds,
    parse_fdb,
)
from tests.polling import until
from tests.servers import Vswitchd, run_dir, vswitchd

FRAME = bytes.fromhex("ffffffffffff 0a0000000001 0800".replace(" ", "")) + bytes(46)


@pytest.fixture(scope="module")
def switch(ovs: None) -> Iterator[Vswitchd]:
    with vswitchd() as switch:
        switch.server.vsctl(
            *("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy"),
            *("--", "add-port", "br0", "p1", "--", "set", "interface", "p1", "type=dummy", "ofport_request=1"),
            *("--", "add-bond", "br0", "bond0", "e1", "e2", "bond_mode=active-backup"),
            *("--", "set", "interface", "e1", "type=dummy", "--", "set", "interface", "e2", "type=dummy"),
        )
        yield switch


@pytest.fixture
def appctl(switch: Vswitchd) -> Appctl:
    return Appctl(switch.control)


async def test_any_command_gives_what_ovs_appctl_prints(switch: Vswitchd, appctl: Appctl) -> None:
    for command in (("version",), ("list-commands",), ("dpif/show",), ("bond/show", "bond0")):
        expected = switch.appctl(*command)
        if command == ("bond/show", "bond0"):  # times pass between two calls
            assert (await appctl.call(*command)).splitlines()[:2] == expected.splitlines()[:2]
        else:
            assert await appctl.call(*command) == expected
            assert call_sync(switch.control, *command) == expected
    assert {"version", "fdb/show", "exit"} <= await appctl.commands()


async def test_a_frame_received_is_learned(appctl: Appctl) -> None:
    await appctl.netdev_dummy_receive("p1", FRAME)
    (entry,) = [entry for entry in await appctl.fdb_show("br0") if entry.ofport == 1]
    assert (entry.vlan, entry.mac) == (0, "0a:00:00:00:00:01")
    assert any("in_port(" in flow for flow in await appctl.dpctl_dump_flows("-m"))


async def test_trace_of_a_flow_and_of_a_packet(appctl: Appctl) -> None:
    for trace in (
        await appctl.ofproto_trace("br0", "in_port=1,dl_src=0a:00:00:00:00:02"),
        await appctl.ofproto_trace("br0", "in_port=1", packet=FRAME),
    ):
        assert 'bridge("br0")' in trace
        assert "Datapath actions:" in trace


async def test_connections_tracked_are_listed(switch: Vswitchd, appctl: Appctl) -> None:
    switch.ofctl("add-flow", "br0", "table=0,priority=9,in_port=1,udp,actions=ct(commit,zone=7),normal")
    ip = bytes.fromhex("4500001c00004000401126cf0a0000010a000002") + bytes.fromhex("0400003500080000")

    async def tracked() -> bool:
        # The switch is told of a frame, and takes it later; one that comes before it has looked through its caches goes as before the flow.
        await appctl.netdev_dummy_receive("p1", FRAME[:14] + ip + bytes(18))
        return any("10.0.0.1" in line for line in await appctl.dpctl_dump_conntrack("zone=7"))

    await until(tracked, "the connection")
    assert await appctl.dpctl_dump_conntrack("zone=8") == ()


async def test_bond_show_is_typed(appctl: Appctl) -> None:
    (bond,) = await appctl.bond_show("bond0")
    assert [other.name for other in await appctl.bond_show()] == [bond.name]
    assert (bond.name, bond.mode, bond.lacp_status) == ("bond0", "active-backup", "off")
    assert [member.name for member in bond.members] == ["e1", "e2"]
    assert sum(member.active for member in bond.members) == (bond.active_member is not None)


async def test_many_calls_at_once(switch: Vswitchd, appctl: Appctl) -> None:
    version = switch.appctl("version")
    assert await asyncio.gather(*(appctl.call("version") for _ in range(50))) == [version] * 50


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("fdb/show", "nope"), "no such bridge"),
        (("nope",), '"nope" is not a valid command'),
        (("fdb/show",), "requires at least 1 arguments"),
    ],
)
async def test_what_the_daemon_refuses(appctl: Appctl, command: tuple[str, ...], says: str) -> None:
    with pytest.raises(CommandRefused, match=says) as refused:
        await appctl.call(*command)
    assert (refused.value.socket, refused.value.command) == (appctl.path, command)
    with pytest.raises(CommandRefused, match=says):
        call_sync(appctl.path, *command)


async def test_no_daemon() -> None:
    with run_dir() as path:
        with pytest.raises(DaemonUnreachable, match="is the daemon running"):
            await Appctl(path / "no.ctl").call("version")
        with pytest.raises(DaemonUnreachable, match="is the daemon running"):
            call_sync(path / "no.ctl", "version")
        with pytest.raises(DaemonUnreachable, match="cannot tell ovs-vswitchd's process id"):
            control_socket(path)
        (path / "ovs-vswitchd.pid").write_text("123\n")
        assert control_socket(path) == path / "ovs-vswitchd.123.ctl"


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def peer(serve: Serve) -> AsyncIterator[Path]:
    with run_dir() as path:
        server = await asyncio.start_unix_server(serve, path / "peer.ctl")
        try:
            yield path / "peer.ctl"
        finally:
            server.close()


def says(*chunks: bytes, close: bool = True) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(4096)
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
            if not close:
                await reader.read(-1)  # until the client gives up
        writer.close()

    return serve


@pytest.mark.parametrize(
    ("serve", "error"),
    [
        (says(b""), DaemonUnreachable),
        (says(b'{"id":0,"result":"half'), DaemonUnreachable),
        (says(b"hello, this is not JSON at all }"), BadReply),
        (says(b"]"), BadReply),
        (says(b'{"id":0,"result":5,"error":null}'), BadReply),
        (says(b'{"id":0,"result":"\xff","error":null}'), BadReply),
        (says(b'{"id":9,"result":"other","error":null}'), BadReply),
        (says(b'{"id":0,"result":null,"error":null}'), BadReply),
        (says(b"[" * 100_000, b"]" * 100_000), BadReply),
        (says(b'{"x":' + b"[" * 100_000, b"]" * 100_000 + b"}"), BadReply),
        (says(*[b'{"id":0,"result":"', b"x" * 300_000]), BadReply),
        (says(b'{"id":0,"resu', close=False), CommandTimedOut),
    ],
)
async def test_a_peer_that_misbehaves_gets_a_typed_error(serve: Serve, error: type[AppctlError]) -> None:
    async with peer(serve) as path:
        with pytest.raises(error):
            await Appctl(path, timeout_s=0.5, max_reply_bytes=250_000).call("version")
        with pytest.raises(error):
            await asyncio.to_thread(call_sync, path, "version", timeout_s=0.5, max_reply_bytes=250_000)


async def test_a_table_that_is_none_is_the_peer_s_fault() -> None:
    async with peer(says(b'{"id":0,"result":"header\\nnot a row","error":null}')) as path:
        with pytest.raises(BadReply, match="not a row of fdb/show: 'not a row'"):
            await Appctl(path).fdb_show("br0")
    async with peer(says(b'{"id":0,"result":"---- b ----\\nnot a line","error":null}')) as path:
        with pytest.raises(BadReply, match="not a line of bond/show: 'not a line'"):
            await Appctl(path).bond_show("b")


async def test_a_reply_in_small_pieces() -> None:
    text = 'braces { [ } in strings, "quotes", back\\slashes \\\\" and ünïcode\n' * 20
    data = json.dumps({"id": 0, "result": text, "error": None}, ensure_ascii=False).encode()
    async with peer(says(*(data[i : i + 7] for i in range(0, len(data), 7)))) as path:
        assert await Appctl(path).call("x") == text


def test_tables_as_newer_and_older_versions_print_them() -> None:
    text = " port  VLAN  MAC                Age\nLOCAL     5  0a:00:00:00:00:01    0\n    3     0  0a:00:00:00:00:02  static\n"
    assert parse_fdb(text) == (
        FdbEntry(None, 5, "0a:00:00:00:00:01", 0),
        FdbEntry(3, 0, "0a:00:00:00:00:02", None),
    )
    old = (
        "---- b ----\nbond_mode: balance-slb\nlacp_status: off\nactive slave mac: 0a:00:00:00:00:01(e1)\n\n"
        "slave e1: enabled\n  active slave\n  may_enable: true\n  hash 7: 3 kB load\n\nslave e2: disabled\n  may_enable: false\n"
    )
    (bond,) = parse_bonds(old)
    assert bond.members == (BondMember("e1", True, True, True), BondMember("e2", False, False, False))
    assert parse_bonds("") == ()
    with pytest.raises(ValueError, match="not a row of fdb/show: 'junk'"):
        parse_fdb("header\njunk")


@given(st.text())
def test_any_text_is_a_table_or_a_value_error(text: str) -> None:
    for parse in (parse_fdb, parse_bonds):
        with contextlib.suppress(ValueError):
            parse(text)
