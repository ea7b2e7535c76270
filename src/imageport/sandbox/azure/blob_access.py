# References: Azure Storage, "Authorize with Microsoft Entra ID", "Create a user delegation SAS";
# roles' data actions of Microsoft.Storage/storageAccounts/blobServices.
"""Who may do what in the job account: a bearer token, or a URL signed with a delegated key."""

from __future__ import annotations

import calendar
import time
from dataclasses import dataclass

from imageport.sandbox.azure.blob_answers import (
    BlobRefusal,
    BlobRequest,
    iso_time,
    not_authenticated,
    not_permitted,
)
from imageport.sandbox.azure.disk_knobs import DataKnobs, Record, storage_clock
from imageport.sandbox.azure.page_checksums import unsupported
from imageport.sandbox.azure.sas_delegation import OLDEST_VERSION, fits

_SERVICE = "Microsoft.Storage/storageAccounts/blobServices"
READ = f"{_SERVICE}/containers/blobs/read"
WRITE = f"{_SERVICE}/containers/blobs/write"
DELETE = f"{_SERVICE}/containers/blobs/delete"
CONTAINER_READ = f"{_SERVICE}/containers/read"
CONTAINER_WRITE = f"{_SERVICE}/containers/write"
DELEGATE = f"{_SERVICE}/generateUserDelegationKey/action"

_CHALLENGE = (
    "Bearer authorization_uri=https://login.microsoftonline.com/common/oauth2/authorize "
    "resource_id=https://storage.azure.com"
)


@dataclass(frozen=True, slots=True)
class Need:
    """What a request needs: a role's action, or letters of which a signature must have one."""

    action: str
    letters: str = ""
    """Empty: no signed URL suffices."""


class BlobAccess:
    """Admits requests to the account."""

    def __init__(self, account: str, token: str, secret: bytes, knobs: DataKnobs) -> None:
        self._account = account
        self._token = token
        self._secret = secret
        self._knobs = knobs

    def check(self, request: BlobRequest, place: tuple[str, str], need: Need) -> None:
        """Raise BlobRefusal unless the request is allowed; ``place`` is container and blob."""
        if "sig" in request.query:
            self._check_signature(request.query, place)
            if not set(need.letters) & set(request.query.get("sp", "")):
                raise not_permitted()
        else:
            self._check_bearer(request.headers)

    def check_role(self, need: Need, record: Record) -> None:
        """Refuse what the role lacks: a signed URL allows no more than its signer may."""
        record(need.action)
        if need.action in self._knobs.denied:
            raise not_permitted()

    def _check_bearer(self, headers: dict[str, str]) -> None:
        sent = headers.get("authorization", "")
        if not sent:
            text = "Server failed to authenticate the request. Please refer to the information "
            refusal = BlobRefusal(401, "NoAuthenticationInformation", f"{text}in the header.")
        elif sent != f"Bearer {self._token}":
            text = "Server failed to authenticate the request. The token is not valid."
            refusal = BlobRefusal(401, "InvalidAuthenticationInfo", text)
        else:
            return
        refusal.headers["WWW-Authenticate"] = _CHALLENGE
        raise refusal

    def _check_signature(self, query: dict[str, str], place: tuple[str, str]) -> None:
        for name in ("srh", "srq"):
            if name in query:
                raise unsupported(name, query[name])
        if query.get("sv", "") < OLDEST_VERSION or "skoid" not in query:
            raise not_authenticated("The account takes no signature but one of a delegated key.")
        container, blob = place
        resources = {"b": f"/{container}/{blob}", "c": f"/{container}"}
        if query.get("sr") not in resources:
            raise not_authenticated("sr is not valid.")
        resource = f"/blob/{self._account}{resources[query['sr']]}"
        if not fits(self._secret, query, resource):
            raise not_authenticated("Signature did not match.")
        now = storage_clock(self._knobs)
        for start, expiry in ((query.get("st", ""), query.get("se", "")), _key_times(query)):
            if not (start == "" or _seconds(start) <= now) or not now < _seconds(expiry):
                frame = f"Start [{start}] - Expiry [{expiry}] - Current [{iso_time(now)}]"
                text = f"Signature not valid in the specified time frame: {frame}"
                raise not_authenticated(text)
        if query.get("spr") == "https":
            text = "This request is not authorized to perform this operation using this protocol."
            raise BlobRefusal(403, "AuthorizationProtocolMismatch", text)


def _key_times(query: dict[str, str]) -> tuple[str, str]:
    return query.get("skt", ""), query.get("ske", "")


def _seconds(text: str) -> float:
    """Return a time of a signed URL in seconds since the epoch."""
    for shape in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d"):
        try:
            return float(calendar.timegm(time.strptime(text, shape)))
        except ValueError:
            continue
    raise not_authenticated(f"'{text}' is not a time.")
