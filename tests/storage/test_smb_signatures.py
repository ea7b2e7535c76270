"""Signatures made without copies are smbprotocol's own, byte for byte."""

from __future__ import annotations

import os
import struct
import uuid

import pytest
from smbprotocol import Dialects
from smbprotocol.connection import Connection, SigningAlgorithms
from smbprotocol.header import Commands, SMB2HeaderResponse

from imageport.errors import ShareError
from imageport.storage import smb_messages as messages
from imageport.storage.smb_connection import StrictConnection
from imageport.storage.smb_signature import HeaderApart

KEY = bytes(range(16))
BODY = os.urandom(5000)
MODES = [
    pytest.param(Dialects.SMB_3_1_1, SigningAlgorithms.AES_GMAC, id="GMAC"),
    pytest.param(Dialects.SMB_3_1_1, SigningAlgorithms.AES_CMAC, id="CMAC"),
    pytest.param(Dialects.SMB_3_1_1, None, id="none-negotiated"),
    pytest.param(Dialects.SMB_3_0_2, None, id="3.0.2"),
    pytest.param(Dialects.SMB_3_1_1, SigningAlgorithms.HMAC_SHA256, id="HMAC"),
    pytest.param(Dialects.SMB_2_1_0, None, id="2.1"),
]


def answer_with(body: bytes) -> SMB2HeaderResponse:
    """Return a received header as smbprotocol unpacks it."""
    header = SMB2HeaderResponse()
    header["command"] = Commands.SMB2_READ
    header["message_id"] = 7
    header["signature"] = os.urandom(16)
    header["data"] = body
    return header


def connection_of(made: type[Connection], dialect: int, algorithm: int | None) -> Connection:
    """Return a connection that never connected but has agreed on how to sign."""
    connection = made(uuid.uuid4(), "nowhere", 1)
    connection.dialect, connection.signing_algorithm_id = dialect, algorithm
    return connection


@pytest.mark.parametrize(("dialect", "algorithm"), MODES)
@pytest.mark.parametrize("from_server", [True, False])
@pytest.mark.parametrize("command", [Commands.SMB2_READ, Commands.SMB2_CANCEL])
def test_a_signature_is_the_one_that_smbprotocol_makes(
    dialect: int, algorithm: int | None, command: int, *, from_server: bool
) -> None:
    header = answer_with(BODY)
    about = (KEY, 2**40 + 7, from_server, command)
    theirs = connection_of(Connection, dialect, algorithm)
    ours = connection_of(StrictConnection, dialect, algorithm)

    expected = theirs._generate_signature(header.pack(), *about)

    assert len(expected) == 16
    assert ours._generate_signature(header.pack(), *about) == expected
    assert ours._generate_signature(HeaderApart(header).pack(), *about) == expected


@pytest.mark.parametrize(
    ("offset", "length"), [(80, 5), (79, 4), (0, 4), (255, 4), (80, 2**32 - 1)]
)
def test_an_answer_to_a_read_that_points_outside_itself_is_refused(
    offset: int, length: int
) -> None:
    body = struct.pack("<HBBIII", 17, offset, 0, length, 0, 0) + b"data"

    with pytest.raises(ShareError, match="Bad answer: found data at"):
        messages.read_bytes_of(answer_with(body))


def test_padding_before_and_behind_the_data_of_a_read_is_left_out() -> None:
    body = struct.pack("<HBBIII", 17, 84, 0, 4, 0, 0) + b"....data..."

    assert messages.read_bytes_of(answer_with(body)) == b"data"
