# References: IAM, "Testing permissions"; Resource Manager REST v1, projects.testIamPermissions;
# Cloud KMS REST v1, cryptoKeys.get.
"""What Google's other services answer about the project: permissions, and the one key."""

from __future__ import annotations

import re
from typing import Final

from imageport.sandbox.gcp.account import KMS_KEY, PROJECT
from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_messages import GceRefusal, GceRequest, Json

MOST_PERMISSIONS: Final = 100
KEY_GET: Final = "cloudkms.cryptoKeys.get"
_PERMISSION: Final = re.compile(r"[a-z]+(\.[A-Za-z]+){2}")
_TEST: Final = re.compile(r"/v1/projects/([^/:]+):testIamPermissions")
_KEY: Final = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/:]+)")


def test_resource(compute: Compute, request: GceRequest) -> Json:
    """Answer testIamPermissions of an image or a subnet."""
    return granted(compute, request.body)


def granted(compute: Compute, body: Json) -> Json:
    """Return those of the permissions asked for that the account has."""
    asked = [str(item) for item in body.get("permissions", [])]
    if not 0 < len(asked) <= MOST_PERMISSIONS:
        text = f"Needs from 1 to {MOST_PERMISSIONS} permissions."
        raise GceRefusal(400, "badRequest", text)
    for name in asked:
        if not _PERMISSION.fullmatch(name):
            raise GceRefusal(400, "badRequest", f"Permission {name} is not valid.")
    found = [name for name in asked if name not in compute.knobs.denied]
    return {"permissions": found} if found else {}


def answer_other(compute: Compute, method: str, path: str, body: Json) -> Json:
    """Answer a request to Resource Manager or Cloud KMS."""
    test, key = _TEST.fullmatch(path), _KEY.fullmatch(path)
    if test is not None and method == "POST":
        if test[1] != PROJECT:
            raise GceRefusal(403, "forbidden", "The caller does not have permission")
        return granted(compute, body)
    if key is not None and method == "GET":
        return _key(compute, key[1])
    raise GceRefusal(404, "notFound", "Requested entity was not found.")


def _key(compute: Compute, name: str) -> Json:
    compute.emulator.calls.record(KEY_GET)
    if KEY_GET in compute.knobs.denied:
        text = f"Permission '{KEY_GET}' denied on resource '{name}' (or it may not exist)."
        raise GceRefusal(403, "forbidden", text)
    if name != KMS_KEY:
        raise GceRefusal(404, "notFound", f"CryptoKey {name} not found.")
    primary = {"name": f"{name}/cryptoKeyVersions/1", "state": "ENABLED"}
    document: Json = {"name": name, "purpose": "ENCRYPT_DECRYPT", "primary": primary}
    return document | compute.knobs.resources.get(name, {})
