"""What a refusal says of an encrypted volume: whose key opens it, or that one lies open on it."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.compose.volumes.bitlocker import describe_bitlocker, is_bitlocker

METADATA_AT = (0x100000, 0x200000, 0x300000)
VOLUME_BYTES = 4 * 1024 * 1024
VERSION_7 = UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001")
AES_XTS_128 = 0x8004


def entry(kind: int, value_kind: int, data: bytes) -> bytes:
    return struct.pack("<HHHH", 8 + len(data), kind, value_kind, 1) + data


def master_key(protection: int) -> bytes:
    """An entry with GUID, time, two unknown bytes, the protection, and an encrypted key."""
    data = bytes(range(16)) + struct.pack("<QHH", 133_000_000_000_000_000, 0, protection)
    return entry(0x0002, 0x0008, data + encrypted_key(0x0000))


def encrypted_key(kind: int) -> bytes:
    """Nonce (12), authentication code (16), and 44 bytes of key, all of nothing."""
    return entry(kind, 0x0005, bytes(72))


@functools.cache
def encrypted_volume(*protections: int) -> bytes:
    """A volume header of Windows 7 and later, and three metadata blocks with these keys."""
    header = bytearray(b"\xeb\x58\x90-FVE-FS-".ljust(512, b"\0"))
    struct.pack_into("<HB", header, 11, 512, 8)
    header[160:176] = VERSION_7.bytes_le
    struct.pack_into("<QQQ", header, 176, *METADATA_AT)
    header[510:] = b"\x55\xaa"
    described = entry(0x0007, 0x0002, "DESKTOP C: 1/2/2026\0".encode("utf-16-le"))
    keys = b"".join(map(master_key, protections))
    entries = described + keys + encrypted_key(0x0003)
    size = 48 + len(entries)
    metadata = struct.pack("<IIII", size, 1, 48, size) + bytes(16)
    metadata += struct.pack("<IHHQ", 1, AES_XTS_128, 0, 133_000_000_000_000_000) + entries
    block = b"-FVE-FS-" + struct.pack("<HHHHQ", 64 + size, 2, 4, 4, VOLUME_BYTES)
    block += struct.pack("<IIQQQQ", 0, 16, *METADATA_AT, 0x400000)
    volume = bytearray(VOLUME_BYTES)
    volume[:512] = header
    for at in METADATA_AT:
        volume[at : at + 64 + size] = block.ljust(64, b"\0") + metadata
    return bytes(volume)


def described(volume: bytes) -> str:
    return describe_bitlocker(volume[:512], lambda at, length: volume[at : at + length])


@pytest.mark.parametrize(
    ("protections", "text"),
    [
        ((0x0100, 0x0800), "its key is protected by the TPM and a recovery password"),
        ((0x2000,), "its key is protected by a password"),
        ((0x0500,), "its key is protected by the TPM with a PIN"),
        ((0x1234,), "its key is protected by a protector of type 0x1234"),
        ((0x0800, 0x0000), "its protection is suspended, it is encrypted all the same"),
        ((0x0000,), "its protection is suspended, it is encrypted all the same"),
        ((), ""),
    ],
)
def test_the_protectors_are_told(protections: tuple[int, ...], text: str) -> None:
    volume = encrypted_volume(*protections)
    assert is_bitlocker(volume[:512])
    assert described(volume) == text


def test_cryptsetup_reads_the_same_from_the_volume(tmp_path: Path) -> None:
    program = shutil.which("cryptsetup", path="/usr/sbin:/sbin:/usr/bin")
    if program is None:
        pytest.skip("cryptsetup is not installed")
    path = tmp_path / "volume.raw"
    path.write_bytes(encrypted_volume(0x0800, 0x0000))
    done = subprocess.run([program, "bitlkDump", path], capture_output=True, text=True, check=False)
    assert "VMK protected with recovery passphrase" in done.stdout, done.stderr
    assert "VMK protected with clear key" in done.stdout


@settings(deadline=None)  # time is no property here: machines are shared
@given(st.binary(min_size=0, max_size=512), st.binary(max_size=512))
def test_any_bytes_are_described_or_not(boot_sector: bytes, rest: bytes) -> None:
    text = describe_bitlocker(boot_sector, lambda _at, length: (b"-FVE-FS-" + rest)[:length])
    assert isinstance(text, str)


@settings(deadline=None)  # time is no property here: machines are shared
@given(st.data())
def test_damaged_metadata_is_described_or_not(data: st.DataObject) -> None:
    volume = encrypted_volume(0x0100, 0x0800)
    block = bytearray(volume[METADATA_AT[0] : METADATA_AT[0] + 512])
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(st.integers(0, 300))] = data.draw(st.integers(0, 255))
    text = describe_bitlocker(volume[:512], lambda at, n: bytes(block)[at - METADATA_AT[0] :][:n])
    assert isinstance(text, str)
