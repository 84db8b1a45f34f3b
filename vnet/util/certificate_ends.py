"""When a certificate ends, read with Python's own libraries: an agent loads no cryptography.

One rule: only the shape is read (RFC 5280 §4.1), nothing is verified; what has another shape has no end.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def certificate_end_s(path: Path) -> float | None:
    """The end of the first certificate in a PEM file, in seconds since 1970; None where there is none that can be read."""
    try:
        text = path.read_text()
        start = text.index(BEGIN)
        der = ssl.PEM_cert_to_DER_cert(text[start : text.index(END, start) + len(END)])
        return _end_of(der)
    except (OSError, ValueError, IndexError):
        return None


def _end_of(der: bytes) -> float:
    _, certificate, _ = _element(der)
    _, rest, _ = _element(certificate)
    tag, _, _ = _element(rest)
    skipped = 4 if tag == VERSION else 3  # version, serialNumber, signature, issuer
    for _ in range(skipped):
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, rest = _element(validity)
    tag, moment, _ = _element(rest)
    text = moment.decode("ascii")
    if tag == UTC_TIME:  # two digits of the year, up to 49 after 2000 (RFC 5280 §4.1.2.5.1)
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element's tag and content, and what follows it (X.690 §8.1)."""
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise ValueError("cut off")
    return tag, data[start : start + length], data[start + length :]
