# References: Azure Storage, Put Page (Content-MD5, x-ms-content-crc64); CRC-64/NVME (reflected
# polynomial 0x9A6C9329AC4BC9B5, all ones in and out), sent in little-endian base64.
"""Checksums of a request's body, checked when the client sends them."""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from imageport.sandbox.azure.blob_answers import BlobRefusal

CHECKSUM_HEADERS = (
    "content-md5",
    "x-ms-content-crc64",
    "x-ms-structured-body",
    "x-ms-range-get-content-md5",
)
_POLYNOMIAL = 0x9A6C9329AC4BC9B5
_ONES = 0xFFFFFFFFFFFFFFFF


def check_body(body: bytes, headers: dict[str, str]) -> dict[str, str]:
    """Return the headers that confirm the checksums sent; 400 when one does not fit."""
    if "content-md5" in headers and "x-ms-content-crc64" in headers:
        text = "Only one of Content-MD5 and x-ms-content-crc64 may be specified."
        raise BlobRefusal(400, "InvalidInput", text)
    if "x-ms-structured-body" in headers:
        raise unsupported("x-ms-structured-body", headers["x-ms-structured-body"])
    confirmed = {}
    if "content-md5" in headers:
        confirmed["Content-MD5"] = check_md5(body, headers["content-md5"])
    if "x-ms-content-crc64" in headers:
        found = base64.b64encode(crc64(body).to_bytes(8, "little")).decode()
        if found != headers["x-ms-content-crc64"]:
            raise _mismatch("Crc64Mismatch", "CRC64", headers["x-ms-content-crc64"], found)
        confirmed["x-ms-content-crc64"] = found
    return confirmed


def check_md5(body: bytes, sent: str) -> str:
    """Return the MD5 in base64; 400 when the one that was sent differs."""
    found = md5_of(body)
    if found != sent:
        raise _mismatch("Md5Mismatch", "MD5", sent, found)
    return found


def md5_of(body: bytes) -> str:
    """Return the MD5 in base64."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def unsupported(name: str, value: str) -> BlobRefusal:
    """Say that a header is not known here."""
    text = "One of the HTTP headers specified in the request is not supported."
    details = {"HeaderName": name, "HeaderValue": value}
    return BlobRefusal(400, "UnsupportedHeader", text, details)


def crc64(data: bytes) -> int:
    """Return the CRC-64 of Azure Storage (about 10 MiB a second: clients rarely send it)."""
    table = _table()
    crc = _ONES
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ _ONES


@cache
def _table() -> tuple[int, ...]:
    entries = []
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = (crc >> 1) ^ _POLYNOMIAL if crc & 1 else crc >> 1
        entries.append(crc)
    return tuple(entries)


def _mismatch(code: str, kind: str, sent: str, found: str) -> BlobRefusal:
    text = f"The {kind} value specified in the request did not match with the {kind} value "
    details = {f"UserSpecified{kind.title()}": sent, f"ServerCalculated{kind.title()}": found}
    return BlobRefusal(400, code, f"{text}calculated by the server.", details)
