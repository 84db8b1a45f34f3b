"""The pool database as a RAFT cluster: making one of the embedded database, joining one, and what a server knows of it.

One rule: what was in the embedded database is in the cluster, and a copy of its file stays beside it.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass, replace

from vnet.api.errors import Conflict, Invalid, NotFound
from vnet.controller.embedded import EmbeddedDatabase, run_tool
from vnet.controller.server_proxy import shown_address, socket_address
from vnet.db.errors import PoolUnreachable
from vnet.db.rows import SCHEMA_NAME

ELECTION_TIMER_MS = 1000
JOIN_TIMEOUT_S = 30.0

# The address by which servers reach each other, ovsdb(7) "Clustered Database Service Model".
_ADDRESS = re.compile(r"(?:tcp|ssl):(\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:.]+\]):\d{1,5}|unix:/.+")
_SERVER = re.compile(r"^    (\S+) \(\w+ at (\S+)\)(.*)$", re.MULTILINE)
_LAST_MESSAGE = re.compile(r"last msg (\d+) ms ago")
_WON = re.compile(r"^Last Election won: (\d+) ms ago", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Member:
    """A server of the cluster, as the one that was asked knows it.

    server: where the others reach it. leader: the leader's, None while there is none. connected: whether the asked server is in
    touch with it; of itself, whether it is in touch with the cluster. since: milliseconds since 1970; of a leader that was asked
    itself, when it was elected, of a server that is not connected, when it was last heard, else None. role: leader, follower or
    candidate, and unknown of a server that is not connected.
    """

    server: str
    role: str
    leader: str | None
    term: int
    connected: bool
    since: int | None


def create_cluster(database: EmbeddedDatabase, address: str, election_timer_ms: int = ELECTION_TIMER_MS) -> bool:
    """Make the embedded database, or a new one, the first server of a cluster, and start it. False if it is that already.

    Whoever is connected loses the connection for the time it takes. Raises Invalid, Conflict, SchemaMismatch, PoolUnreachable.
    """
    _check_address(address)
    if _is_member(database, address):
        at_its_address(database).ensure()
        return False
    database = replace(database, address=socket_address(address))
    with database.alone():
        database.prepare_file()
        database.stop()
        made = database.database.with_suffix(".db.new")
        made.unlink(missing_ok=True)
        timer = f"--election-timer={election_timer_ms}"
        run_tool("ovsdb-tool", timer, "create-cluster", str(made), str(database.database), database.address)
        shutil.copy2(database.database, database.database.with_suffix(".db.standalone"))
        made.replace(database.database)  # at once: a controller that starts meanwhile finds one or the other
        database.start()
    _wait_member(database)
    return True


def join(database: EmbeddedDatabase, address: str, others: tuple[str, ...]) -> bool:
    """Make this host a server of the cluster that `others`, one at least, are servers of. False if it is one already.

    Raises Invalid, Conflict where there is a pool already, PoolUnreachable where the cluster does not let it in within 30 s.
    """
    for text in (address, *others):
        _check_address(text)
    if _is_member(database, address):
        at_its_address(database).ensure()
        return False
    database = replace(database, address=socket_address(address), peers=others)
    with database.alone():
        if database.database.exists():
            text = f"{database.database} holds a pool of its own, which joining would lose: move it away first"
            raise Conflict("pool-exists", text, str(database.database))
        servers = map(socket_address, (address, *others))
        run_tool("ovsdb-tool", "join-cluster", str(database.database), SCHEMA_NAME, *servers)
        database.start()
    _wait_member(database)
    return True


def status(database: EmbeddedDatabase, now_ms: int) -> tuple[Member, ...]:
    """What the server here knows of its cluster. Raises PoolUnreachable where none runs, Conflict where it is alone."""
    if not database.clustered:
        text = f"{database.database} is not of a cluster: 'vnet pool create-cluster' makes one of it"
        raise Conflict("not-clustered", text, str(database.database))
    return parse_status(_ask(database), now_ms)


def parse_status(text: str, now_ms: int) -> tuple[Member, ...]:
    """The servers that `cluster/status` tells of, by address; `now_ms`: when it was asked."""
    servers = {name: (shown_address(address), rest) for name, address, rest in _SERVER.findall(text)}
    said = {name: _line(text, name) for name in ("Leader", "Role", "Status", "Address", "Term", "Connections")}
    said["Address"] = shown_address(said["Address"])
    leader = said["Address"] if said["Leader"] == "self" else servers.get(said["Leader"], (None, ""))[0]
    linked = {token[2:] for token in said["Connections"].split() if token.startswith(("->", "<-"))}
    term = int(said["Term"] or 0)
    found = []
    for name, (address, rest) in servers.items():
        me = address == said["Address"]
        # A leader without a majority says that it is disconnected from the cluster before it gives up.
        connected = said["Status"] == "cluster member" and leader is not None if me else name in linked
        role = said["Role"] if me else "unknown" if not connected else "leader" if address == leader else "follower"
        ago = _WON.search(text) if me and address == leader else None if me or connected else _LAST_MESSAGE.search(rest)
        found.append(Member(address, role, leader, term, connected, now_ms - int(ago[1]) if ago else None))
    return tuple(sorted(found, key=lambda member: member.server))


def _line(text: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def _ask(database: EmbeddedDatabase) -> str:
    return run_tool("ovs-appctl", "--timeout=5", "-t", str(database.control), "cluster/status", SCHEMA_NAME)


def _check_address(address: str) -> None:
    if not _ADDRESS.fullmatch(address):
        raise Invalid(
            "address", f"{address!r} is no address of a server: ssl:IP:PORT, tcp:IP:PORT or unix:/PATH", "address"
        )


def local_address(database: EmbeddedDatabase) -> str:
    """The address of the server whose file is here. Raises PoolUnreachable for another file."""
    return shown_address(_file_address(database))


def _file_address(database: EmbeddedDatabase) -> str:
    return run_tool("ovsdb-tool", "db-local-address", str(database.database)).strip()


def at_its_address(database: EmbeddedDatabase) -> EmbeddedDatabase:
    """The database of a cluster's server that was made before. Raises PoolUnreachable for another file."""
    return replace(database, address=_file_address(database))


def kick(database: EmbeddedDatabase, server: str) -> None:
    """Take a server out of the cluster, by the address that `status` shows; returns once it is out.

    Raises NotFound, Conflict where this host's server is alone, PoolUnreachable where it is not out within 30 s, as without a majority.
    """
    known = [member.server for member in status(database, 0)]
    if server not in known:
        raise NotFound("no-server", f"no server {server} in the cluster: it has {', '.join(known)}", server)
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while address := _known_as(database, server):
        try:
            run_tool("ovs-appctl", "--timeout=5", "-t", str(database.control), "cluster/kick", SCHEMA_NAME, address)
        except PoolUnreachable:  # there is no leader to ask just now
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise PoolUnreachable(f"{server} was not taken out within {JOIN_TIMEOUT_S:.0f} s; see {database.log}")
        time.sleep(0.1)


def _known_as(database: EmbeddedDatabase, server: str) -> str | None:
    """The address of a server in the database, None if it has none of that name."""
    found = (address for _, address, _ in _SERVER.findall(_ask(database)))
    return next((address for address in found if shown_address(address) == server), None)


def _is_member(database: EmbeddedDatabase, address: str) -> bool:
    """Whether the file is of a server at this address. Raises Conflict if it is of one elsewhere."""
    if not database.clustered:
        return False
    known = local_address(database)
    if known != address:
        raise Conflict("is-member", f"{database.database} is of a cluster's server at {known} already", "address")
    return True


def _wait_member(database: EmbeddedDatabase) -> None:
    """Return once the server here is in touch with a leader."""
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while True:
        said = _ask(database)
        if _line(said, "Status") == "cluster member" and _line(said, "Leader") not in ("", "unknown"):
            return
        if time.monotonic() > deadline:
            text = f"not let into the cluster within {JOIN_TIMEOUT_S:.0f} s ({_line(said, 'Status')})"
            raise PoolUnreachable(f"{text}; the server here goes on trying, see {database.log}")
        time.sleep(0.05)
