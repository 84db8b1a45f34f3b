"""The pool's certificate authority (CA): the certificates of its servers and hosts, made and renewed.

One rule: private keys are readable by their owner only, and a file is replaced in one step, so that whoever reads it gets a key with
its certificate. The common name (CN) is the identity: a host's is its name in the pool.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vnet.api.errors import Conflict, Invalid, NotFound
from vnet.util.files import replace_file
from vnet.util.transport import CA, HOST, SERVER, identity_file

CA_LIFE = timedelta(days=3650)
LIFE = timedelta(days=365)
JOINED_LIFE = timedelta(days=7)  # of a host that renews by itself: as long as one that is revoked may still get in
NOTICE = timedelta(days=30)  # before its end a certificate is renewed, or its end announced
EARLY = timedelta(hours=1)  # by how much a clock elsewhere may be behind ours
PEM = serialization.Encoding.PEM


class CertificateUse(Enum):
    """The use of a certificate (RFC 5280 §4.2.1.12): a host's is no server's, so a host cannot pose as the pool database."""

    AUTHORITY = "authority"
    SERVER = "server"
    HOST = "host"


_USAGES = {
    CertificateUse.SERVER: (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    CertificateUse.HOST: (ExtendedKeyUsageOID.CLIENT_AUTH,),
}


@dataclass(frozen=True, slots=True)
class CertificateEnd:
    """A certificate and its end. state: valid, ends-soon within 30 days or the last third of a short life, or expired."""

    name: str
    use: CertificateUse
    ends: datetime
    state: str

    @property
    def problem(self) -> str | None:
        """The problem of one that is not valid for 30 days more."""
        verb = {"valid": None, "ends-soon": "ends", "expired": "ended"}[self.state]
        owner = "CA" if self.use is CertificateUse.AUTHORITY else f"{self.use.value} {self.name}"
        return f"the certificate of {owner} {verb} {self.ends:%Y-%m-%d %H:%M} UTC" if verb is not None else None


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA in a directory: ca.key.pem with its key, ca.pem, issued/ with a copy of each certificate (no keys)."""

    directory: Path

    @property
    def key_file(self) -> Path:
        return self.directory / "ca.key.pem"

    @property
    def certificate_file(self) -> Path:
        return self.directory / CA

    @property
    def present(self) -> bool:
        return self.key_file.exists()

    def create(self, pool: str, now: datetime) -> bool:
        """Make the CA of a pool; False if there is one. Raises Conflict where another machine's CA is in the directory."""
        if self.present:
            return False
        if self.certificate_file.exists():
            raise Conflict("foreign-authority", f"{self.certificate_file} is of a CA whose key is on another machine")
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"vnet pool {pool}")
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            _builder(name, name, key.public_key(), now, now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(_key_id(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        replace_file(self.key_file, _key_pem(key), 0o600)
        replace_file(self.certificate_file, certificate.public_bytes(PEM), 0o644)
        return True

    def issue(
        self, name: str, use: CertificateUse, to: Path, now: datetime, addresses: Iterable[str] = (), life: timedelta = LIFE
    ) -> None:  # fmt: skip
        """Write a new key with its certificate, and the CA's certificate, into the directory `to`.

        addresses: those, and names, by which a server is reached. Raises Invalid, and Conflict where there is no CA.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, use, key.public_key(), now, addresses, life)
        replace_file(to / CA, self.certificate_file.read_bytes(), 0o644)
        own = identity_file(to, SERVER if use is CertificateUse.SERVER else HOST)
        replace_file(own, _key_pem(key) + certificate, 0o600)

    def sign(self, host: str, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta = LIFE) -> bytes:
        """A certificate for the key that a host has made, in PEM. Raises as `issue`."""
        return self._sign(host, CertificateUse.HOST, key, now, (), life)

    def current(self, host: str, now: datetime) -> bytes:
        """A host's certificate, in PEM: the one that it has, or when half of its life or all but 30 days of it are over, a new one of the same key.

        Raises NotFound for a host that has none, or whose is revoked.
        """
        path = self._issued(CertificateUse.HOST, host)
        if not path.exists():
            raise NotFound("no-certificate", f"host {host} has no certificate of this CA, or it is revoked", host)
        old = _certificate(path)
        life = old.not_valid_after_utc - old.not_valid_before_utc - EARLY
        key = old.public_key()
        if old.not_valid_after_utc - now > min(life / 2, NOTICE) or not isinstance(key, ec.EllipticCurvePublicKey):
            return path.read_bytes()
        return self.sign(host, key, now, life)

    def revoke(self, host: str, now: datetime) -> CertificateEnd:
        """Renew a host's certificate no more; the one that ends last. Raises NotFound."""
        path = self._issued(CertificateUse.HOST, host)
        if not path.exists():
            raise NotFound("no-certificate", f"host {host} has no certificate of this CA, or it is revoked", host)
        ends = certificate_end(path, now)
        kept = self.directory / "revoked" / f"{path.stem}-{_certificate(path).serial_number:x}.pem"
        kept.parent.mkdir(exist_ok=True, mode=0o700)
        path.rename(kept)
        return ends

    def ended_between(self, before: datetime, now: datetime) -> bool:
        """Whether a revoked certificate ended after `before`, and by `now`: who is connected by it may stay until it is asked again."""
        ends = (certificate_end(path, now).ends for path in (self.directory / "revoked").glob("*.pem"))
        return any(before < end <= now for end in ends)

    def _issued(self, use: CertificateUse, name: str) -> Path:
        return self.directory / "issued" / f"{use.value}-{_file_name(name)}.pem"

    def _sign(
        self,
        name: str,
        use: CertificateUse,
        key: ec.EllipticCurvePublicKey,
        now: datetime,
        addresses: Iterable[str],
        life: timedelta,
    ) -> bytes:
        if not name or len(name) > 64:  # ub-common-name, RFC 5280 appendix A.1
            raise Invalid("name", f"{name!r}: the name in a certificate has 1 to 64 characters", "name")
        authority, signer = self._load()
        ends = min(now + life, authority.not_valid_after_utc)
        builder = (
            _builder(_name(name), authority.subject, key, now, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_USAGES[use]), critical=False)
            # Strict verifiers want both of them (RFC 5280 §4.2.1.1, §4.2.1.2).
            .add_extension(_key_id(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier(_key_id(signer.public_key()).digest, None, None), critical=False)
        )
        if names := [_alternative(address) for address in addresses]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate: bytes = builder.sign(signer, hashes.SHA256()).public_bytes(PEM)
        replace_file(self._issued(use, name), certificate, 0o644)
        return certificate

    def certificates(self, now: datetime) -> tuple[CertificateEnd, ...]:
        """The CA's own certificate, and the newest of each name, those that end first in front."""
        return tuple(sorted((certificate_end(path, now) for path in self.files), key=lambda found: found.ends))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of these certificates."""
        return tuple(
            path for path in (self.certificate_file, *(self.directory / "issued").glob("*.pem")) if path.exists()
        )

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if not self.present:
            raise Conflict("no-authority", f"{self.directory} has no CA: 'vnet pki make' makes one")
        key = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Invalid("authority", f"{self.key_file} is no key of an elliptic curve")
        return _certificate(self.certificate_file), key


def signing_request(host: str) -> tuple[bytes, bytes]:
    """A new private key, and a request to certify it for a host (RFC 2986), in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(host)).sign(key, hashes.SHA256())
    return _key_pem(key), request.public_bytes(PEM)


def requested_key(request: bytes) -> tuple[ec.EllipticCurvePublicKey, bytes]:
    """The key that a request is for, and the same as bytes. Raises Invalid; what else the request says does not count."""
    try:
        found = x509.load_pem_x509_csr(request)
        key = found.public_key()
        if not found.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid("request", "no signing request of an elliptic curve's key in PEM", "request") from None
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key, key.public_bytes(serialization.Encoding.DER, form)


def renew_server(directory: Path, now: datetime, life: timedelta = LIFE, notice: timedelta | None = NOTICE) -> bool:
    """Renew the server's certificate beside the CA if it ends within `notice`, None for whenever it ends, for the same
    name and addresses.

    False where it does not, or where there is no CA or no certificate here. Raises OSError.
    """
    authority, path = Authority(directory), identity_file(directory, SERVER)
    if not authority.present or not path.exists():
        return False
    if notice is not None and certificate_end(path, now).ends - now > notice:
        return False
    old = _certificate(path)
    authority.issue(_common_name(old), CertificateUse.SERVER, directory, now, addresses_of(old), life)
    return True


def certificate_problems(directory: Path, now: datetime) -> tuple[str, ...]:
    """The certificates that end within 30 days or have ended: the server's here, and all of the CA that is here."""
    files = [identity_file(directory, SERVER), *Authority(directory).files]
    try:
        found = sorted({certificate_end(path, now) for path in files if path.exists()}, key=lambda each: each.ends)
    except (OSError, ValueError) as error:
        return (f"certificates in {directory}: {error}",)
    return tuple(each.problem for each in found if each.problem is not None)


def addresses_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The addresses and names of a server's certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def server_addresses(directory: Path) -> tuple[str, ...] | None:
    """Those of the server's certificate in a directory; None where there is none."""
    path = identity_file(directory, SERVER)
    return addresses_of(_certificate(path)) if path.exists() else None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    begins = min(now, ends) - EARLY
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _key_id(key: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    pem: bytes = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def certificate_end(path: Path, now: datetime) -> CertificateEnd:
    """The end of the first certificate in a file. Raises OSError, ValueError."""
    certificate = _certificate(path)
    ends = certificate.not_valid_after_utc
    notice = min(
        NOTICE, (ends - certificate.not_valid_before_utc) / 3
    )  # a short one is renewed when half of it is over
    state = "expired" if ends <= now else "ends-soon" if ends - now <= notice else "valid"
    return CertificateEnd(_common_name(certificate), _use(certificate), ends, state)


def is_server(certificate: bytes) -> bool:
    """Whether a certificate, in DER, is a server's. That it is of the pool's CA is for others to verify."""
    try:
        return _use(x509.load_der_x509_certificate(certificate)) is CertificateUse.SERVER
    except (ValueError, x509.ExtensionNotFound):
        return False


def _use(certificate: x509.Certificate) -> CertificateUse:
    if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        return CertificateUse.AUTHORITY
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return CertificateUse.SERVER if ExtendedKeyUsageOID.SERVER_AUTH in usages else CertificateUse.HOST


def _file_name(name: str) -> str:
    """A name as part of a file's: whatever it is, it names a file of this directory, and no two names the same."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else f"%{ord(c):x}" for c in name)
