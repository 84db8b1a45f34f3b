"""A real ovs-vswitchd and one blocking OpenFlow 1.5 connection to its bridge's management socket."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator

from ovsctl.openflow import Flow, FlowEntry, decode_flow_descs, encode_flow_delete, encode_flow_mod
from tests.servers import Vswitchd, vswitchd

HELLO, ERROR, ECHO_REQUEST, FLOW_MOD, GROUP_MOD, MULTIPART_REQUEST, BARRIER_REQUEST, METER_MOD = (
    0, 1, 2, 14, 15, 18, 20, 29,
)  # fmt: skip
FLOW_DESC, GROUP_DESC, METER_DESC = 1, 7, 10


class Connection:
    """Sends bodies, collects the errors that come back before a barrier's answer."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(path)
        self._buffer = bytearray()
        self._xid = 0
        self.send(HELLO, b"")

    def close(self) -> None:
        self._socket.close()

    def send(self, kind: int, body: bytes) -> int:
        self._xid += 1
        self._socket.sendall(struct.pack(">BBHI", 6, kind, 8 + len(body), self._xid) + body)
        return self._xid

    def receive(self) -> tuple[int, int, bytes]:
        """(type, xid, body) of the next message."""
        while len(self._buffer) < 8 or len(self._buffer) < self._length():
            data = self._socket.recv(1 << 20)
            assert data, "the switch closed the connection"
            self._buffer += data
        length = self._length()
        message = bytes(self._buffer[:length])
        del self._buffer[:length]
        return message[1], int.from_bytes(message[4:8], "big"), message[8:]

    def _length(self) -> int:
        return int.from_bytes(self._buffer[2:4], "big")

    def barrier(self) -> dict[int, bytes]:
        """Errors by the xid they answer, once everything sent so far is done."""
        xid = self.send(BARRIER_REQUEST, b"")
        errors = {}
        while True:
            kind, answered, body = self.receive()
            if kind == ERROR:
                errors[answered] = body
            elif kind == ECHO_REQUEST:
                self._socket.sendall(struct.pack(">BBHI", 6, 3, 8 + len(body), answered) + body)
            elif answered == xid:
                return errors

    def multipart(self, kind: int, body: bytes) -> bytes:
        """The joined bodies of all parts of a multipart reply."""
        xid = self.send(MULTIPART_REQUEST, struct.pack(">HH4x", kind, 0) + body)
        joined = b""
        while True:
            message, answered, data = self.receive()
            if answered == xid:
                assert message == 19, data.hex()
                joined += data[8:]
                if not data[3] & 1:
                    return joined

    def write(self, flows: Iterable[Flow]) -> dict[int, Flow]:
        """Add flows; those refused, by error type << 16 | code of the last refusal."""
        sent = {self.send(FLOW_MOD, encode_flow_mod(flow)): flow for flow in flows}
        return {int.from_bytes(error[:4], "big"): sent[xid] for xid, error in self.barrier().items() if xid in sent}

    def clear(self) -> None:
        self.send(FLOW_MOD, encode_flow_delete())

    def dump_raw(self) -> bytes:
        body = struct.pack(">B3xII4xQQ", 255, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0) + struct.pack(">HH4x", 1, 4)
        return self.multipart(FLOW_DESC, body)

    def dump(self) -> list[FlowEntry]:
        return list(decode_flow_descs(self.dump_raw()))


@contextlib.contextmanager
def bridge() -> Iterator[tuple[Vswitchd, Connection]]:
    """A switch with the bridge br0 that does nothing on its own, and a connection to it."""
    with vswitchd() as switch:
        switch.server.vsctl(
            "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure",
            "protocols=OpenFlow15",
        )  # fmt: skip
        connection = Connection(str(switch.server.dir / "br0.mgmt"))
        try:
            yield switch, connection
        finally:
            connection.close()
