# References: Azure Storage, Get User Delegation Key.
"""Handing out user delegation keys."""

from __future__ import annotations

import base64
import calendar
import re
import time

from imageport.sandbox.azure.blob_answers import SERVICE_VERSION, BlobAnswer, BlobRefusal
from imageport.sandbox.azure.sas_delegation import DelegationKey, key_value

LONGEST_SECONDS = 7 * 86400
OBJECT_ID = "11111111-aaaa-bbbb-cccc-222222222222"
TENANT_ID = "33333333-aaaa-bbbb-cccc-444444444444"
_TIME = re.compile(rb"<(Start|Expiry)>\s*([0-9TZ:-]{20})\s*</")


def delegation_key(secret: bytes, body: bytes, now: float) -> BlobAnswer:
    """Get User Delegation Key: its time is what the caller asks for, at most seven days."""
    times = {name.decode(): value.decode() for name, value in _TIME.findall(body)}
    if set(times) != {"Start", "Expiry"}:
        raise _bad_time()
    start, expiry = (_seconds(times[name]) for name in ("Start", "Expiry"))
    if expiry <= start or expiry <= now or expiry - now > LONGEST_SECONDS:
        raise _bad_time()
    key = DelegationKey(OBJECT_ID, TENANT_ID, times["Start"], times["Expiry"], "b", SERVICE_VERSION)
    value = base64.b64encode(key_value(secret, key.query())).decode()
    elements = {
        "SignedOid": key.oid,
        "SignedTid": key.tid,
        "SignedStart": key.start,
        "SignedExpiry": key.expiry,
        "SignedService": key.service,
        "SignedVersion": key.version,
        "Value": value,
    }
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in elements.items())
    document = (
        f'<?xml version="1.0" encoding="utf-8"?><UserDelegationKey>{inner}</UserDelegationKey>'
    )
    return BlobAnswer(200, {"Content-Type": "application/xml"}, document.encode())


def _seconds(text: str) -> float:
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        raise _bad_time() from None


def _bad_time() -> BlobRefusal:
    text = "The value for one of the XML nodes is not in the correct format."
    return BlobRefusal(400, "InvalidXmlNodeValue", text)
