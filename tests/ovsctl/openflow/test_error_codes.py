"""Error names against those that ovs-ofctl prints for the same numbers."""

from __future__ import annotations

import subprocess

import pytest

from ovsctl.openflow.error_codes import (
    EXPERIMENTER_ERROR,
    NICIRA,
    error_name,
    error_type_name,
    nicira_errors,
    standard_errors,
)
from ovsctl.openflow.messages import ErrorMessage
from ovsctl.openflow.wire import Reader, frame

KNOWN = [ErrorMessage(kind, code, data=b"x" * 8) for kind, code in standard_errors()]
KNOWN += [ErrorMessage(EXPERIMENTER_ERROR, code, NICIRA, b"x" * 8) for code in nicira_errors()]


def test_every_name_is_what_ovs_ofctl_prints() -> None:
    stream = b"".join(frame(error.TYPE, 1, error.encode()) for error in KNOWN)
    done = subprocess.run(["ovs-ofctl", "ofp-parse", "-"], input=stream, capture_output=True, check=True)
    printed = [line.split()[3] for line in done.stdout.decode().splitlines() if line.startswith("OFPT_ERROR")]
    assert printed == [error.name for error in KNOWN]


@pytest.mark.parametrize("error", KNOWN[:3] + KNOWN[-3:])
def test_errors_round_trip(error: ErrorMessage) -> None:
    assert ErrorMessage.decode(Reader(error.encode())) == error


def test_unknown_numbers_have_names_too() -> None:
    assert error_name(1, 999) == "OFPET_BAD_REQUEST_999"
    assert error_name(77, 1) == "OFPET_77_1"
    assert error_type_name(17) == "OFPET_BUNDLE_FAILED"
    assert error_name(EXPERIMENTER_ERROR, 2600, 0x4F4E4600) == "experimenter 0x4f4e4600 error 2600"
    assert error_name(EXPERIMENTER_ERROR, 9999, NICIRA) == "experimenter 0x00002320 error 9999"
