"""Certificate authorities for tests: a CA in a directory, the identities it issues, and servers that use them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ovsctl.ovsdb import Tls
from tests.servers import run
from vnet.util.transport import CA, HOST, SERVER, identity_file

LIFE = timedelta(days=365)


@dataclass(frozen=True)
class TestAuthority:
    """A CA in a directory. `age` makes a certificate as if that long ago."""

    __test__ = False
    directory: Path

    def server(self, age: timedelta = timedelta(0)) -> Tls:
        from vnet.controller.pki import Authority, CertificateUse

        made, now = Authority(self.directory), datetime.now(UTC) - age
        made.create("test", now)
        made.issue("server", CertificateUse.SERVER, self.directory, now, ("127.0.0.1",))
        return self._files(self.directory, SERVER)

    def at(self, *addresses: str) -> Tls:
        """A server at these addresses."""
        from vnet.controller.pki import Authority, CertificateUse

        made, now = Authority(self.directory), datetime.now(UTC)
        made.create("test", now)
        made.issue("server", CertificateUse.SERVER, self.directory, now, addresses)
        return self._files(self.directory, SERVER)

    def host(self, name: str, age: timedelta = timedelta(0)) -> Tls:
        from vnet.controller.pki import Authority, CertificateUse

        to = self.directory / "hosts" / name
        Authority(self.directory).issue(name, CertificateUse.HOST, to, datetime.now(UTC) - age)
        return self._files(to, HOST)

    def switch(self, name: str) -> Tls:
        """An Open vSwitch of the host `name`: a server of its database and a client of its controllers."""
        from vnet.controller.pki import Authority, CertificateUse

        to = self.directory / "switches" / name
        Authority(self.directory).issue(name, CertificateUse.SERVER, to, datetime.now(UTC))
        return self._files(to, SERVER)

    @staticmethod
    def _files(directory: Path, identity: str) -> Tls:
        own = identity_file(directory, identity)
        return Tls(own, own, directory / CA)


def role_options(tls: Tls, port: int, directory: Path) -> list[str]:
    """The options that have an ovsdb-server listen on a port of loopback for hosts, which have their role. They name a database."""
    from vnet.controller import role_remotes

    schema, made = directory / "remotes.ovsschema", directory / "remotes.db"
    schema.write_text(role_remotes.schema_text())
    run("ovsdb-tool", "create", str(made), str(schema))
    run("ovsdb-tool", "transact", str(made), role_remotes.transaction([f"pssl:{port}:127.0.0.1"], []))
    return [*tls_options(tls), f"--remote={role_remotes.REMOTE}", str(made)]


def tls_options(tls: Tls) -> list[str]:
    """The options that have an ovsdb-server use this identity."""
    return [f"--private-key={tls.private_key}", f"--certificate={tls.certificate}", f"--ca-cert={tls.ca_certificate}"]
