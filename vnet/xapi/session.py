"""A session with the master of a XenServer pool.

One rule: the server is known by its certificate, and each call ends: a pool that does not answer is tried again elsewhere.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any, Final
from xmlrpc.client import Error as XmlRpcError
from xmlrpc.client import SafeTransport

import msgspec
import XenAPI

from vnet import VERSION
from vnet.xapi.inventory import EventsLost
from vnet.xapi.records import TYPES, EventBatch

CALL_S = 60.0  # after which a call has failed


class XapiError(Exception):
    """xapi does not do what it is asked to, or does not answer."""


class NotMaster(XapiError):
    """The host is a slave. master: the address of its master, "" where it does not say."""

    def __init__(self, master: str) -> None:
        super().__init__(f"it is a slave: its master is {master or 'unknown'}")
        self.master = master


class WrongCredentials(XapiError):
    """xapi does not know the user, or the password is another one."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of xapi. ca: a file with the certificates that its servers are known by, None for those that this machine trusts."""

    user: str
    password: str = field(repr=False)
    ca: str | None = None


class _Transport(SafeTransport):
    def make_connection(self, host: Any) -> Any:
        connection: HTTPConnection = super().make_connection(host)
        connection.timeout = CALL_S
        return connection


class XapiSession:
    """A session with one server. Raises XapiError where the file of certificates has none."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        with _errors():
            transport = _Transport(context=ssl.create_default_context(cafile=credentials.ca))
        self._session: Final = XenAPI.Session(f"https://{address}", transport=transport)
        self._credentials: Final = credentials
        self._token = ""

    def open(self) -> None:
        """Logs in. Raises NotMaster, WrongCredentials, XapiError."""
        with _errors():
            self._session.login_with_password(
                self._credentials.user, self._credentials.password, "1.0", f"vnet {VERSION}"
            )

    def close(self) -> None:
        """Logs out, if the server still answers."""
        with suppress(XapiError), _errors():
            self._session.xenapi.session.logout()

    def call(self, method: str, *args: Any) -> Any:
        """A call of XenAPI, as `network.create`. Raises XapiError."""
        with _errors():
            function = self._session.xenapi
            for part in method.split("."):
                function = getattr(function, part)
            return function(*args)

    def pool(self) -> str:
        """The uuid of the pool."""
        [pool] = self.call("pool.get_all_records").values()
        return str(pool["uuid"])

    def batch(self, timeout_s: float) -> EventBatch:
        """The next events, of a new session all objects that there are; none after timeout_s. Raises EventsLost, XapiError."""
        try:
            found = msgspec.convert(
                self.call("event.from", list(TYPES), self._token, timeout_s), EventBatch, strict=False
            )
        except msgspec.ValidationError as error:
            raise XapiError(f"event.from gave no batch of events: {error}") from None
        self._token = found.token
        return found


def master_session(addresses: Iterable[str], credentials: Credentials) -> XapiSession:
    """An open session with the master of the pool that has one of these hosts. Raises XapiError."""
    untried, tried, problem = list(addresses), set(), XapiError("no host was named")
    while untried:
        address = untried.pop(0)
        if address in tried:
            continue
        tried.add(address)
        session = XapiSession(address, credentials)
        try:
            session.open()
        except NotMaster as slave:
            untried[:0] = [slave.master] if slave.master else []
            problem = XapiError(f"{address}: {slave}")
        except WrongCredentials as error:
            raise XapiError(f"{address}: {error}") from None
        except XapiError as error:
            problem = XapiError(f"{address}: {error}")
        else:
            return session
    raise problem


@contextmanager
def _errors() -> Iterator[None]:
    """The SDK's errors as ours."""
    try:
        yield
    except XenAPI.Failure as failure:
        code, *details = map(str, failure.details)
        if code == "HOST_IS_SLAVE":
            raise NotMaster(details[0] if details else "") from None
        if code == "SESSION_AUTHENTICATION_FAILED":
            raise WrongCredentials("it refuses the user or the password") from None
        if code == "EVENTS_LOST":
            raise EventsLost("xapi has dropped events") from None
        raise XapiError(" ".join((code, *details))) from None
    except (OSError, HTTPException, XmlRpcError, ValueError) as error:
        raise XapiError(f"{type(error).__name__}: {error}") from None


Connect = Callable[[str], XapiSession]
