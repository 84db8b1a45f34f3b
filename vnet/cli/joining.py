"""A host that joins a pool: its key and certificate, the options of its agent, the agent's start.

One rule: the private key is made here and never leaves. Nothing is sent before the controller has proved to be of the CA that the invitation names.
"""

from __future__ import annotations

import hmac
import shutil
import ssl
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from vnet import api
from vnet.api.errors import BadAnswer, Unreachable, error_of
from vnet.controller.pki import signing_request
from vnet.util.files import replace_file
from vnet.util.invitation_line import InvitationLine
from vnet.util.transport import CA, HOST, identity_file

T = TypeVar("T")
UNIT = "vnet-agent"
OPTIONS = "VNET_AGENT_OPTIONS="
TIMEOUT_S = 30.0


def take_certificate(invitation: InvitationLine, directory: Path) -> None:
    """Write this host's key with its certificate, and the CA's. Raises ClientError; nothing is written then."""
    try:
        ca = _ca(invitation)
        key, request = signing_request(invitation.name)
        body = api.JoinCall(host=invitation.name, token=invitation.token, request=request.decode())
        with httpx.Client(verify=ssl.create_default_context(cadata=ca), trust_env=False, timeout=TIMEOUT_S) as client:
            answer = client.post(f"{invitation.url}/v1/join", content=msgspec.json.encode(body))
    except httpx.HTTPError as error:
        raise Unreachable(f"{invitation.url}: {error}") from None
    if answer.status_code != 200:
        raise error_of(_decoded(answer, api.Problem), answer.status_code)
    made = _decoded(answer, api.HostCertificate)
    replace_file(directory / CA, ca.encode(), 0o644)
    replace_file(identity_file(directory, HOST), key + made.certificate.encode(), 0o600)


def write_options(invitation: InvitationLine, directory: Path, conf: Path) -> None:
    """Have the agent's options say which host this is and where its pool is. What else the file has stays."""
    remotes = " ".join(f"--pool {remote}" for remote in invitation.pool)
    line = f'{OPTIONS}"--host {invitation.name} {remotes} --pki-dir {directory} --renew-from {invitation.url}"'
    before = conf.read_text().splitlines() if conf.exists() else []
    kept = [known for known in before if not known.startswith(OPTIONS)]
    replace_file(conf, "\n".join([*kept, line, ""]).encode(), 0o644)


def start_agent(systemd: Path = Path("/run/systemd/system")) -> str:
    """Start the agent by systemd, where that is; the outcome, or what to start."""
    if not systemd.is_dir() or shutil.which("systemctl") is None:
        return f"no systemd here: start vnet-agent with the options of {OPTIONS[:-1]}"
    # Nobody waits here until it is ready: the pool's document may not have this host yet.
    for verb in (["enable"], ["restart", "--no-block"]):
        done = subprocess.run(["systemctl", *verb, UNIT], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"'systemctl {verb[0]} {UNIT}' failed: {done.stderr.strip()}"
    return f"started {UNIT}: 'systemctl status {UNIT}' says what it waits for"


def _ca(invitation: InvitationLine) -> str:
    """The CA's certificate, from a server that nobody has verified yet: its fingerprint is what counts."""
    with httpx.Client(verify=False, trust_env=False, timeout=TIMEOUT_S) as client:  # noqa: S501 - as said
        pem = client.get(f"{invitation.url}/v1/ca").text
    try:
        found = sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except ValueError:
        found = ""
    if not hmac.compare_digest(found, invitation.ca):
        raise BadAnswer(f"{invitation.url} is not the controller of this invitation: its CA is another")
    return pem


def _decoded(answer: httpx.Response, answered: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=answered)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"{answer.url}: {error}") from None
