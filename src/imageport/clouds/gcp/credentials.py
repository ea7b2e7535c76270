# References: AIP-4110 "Application default credentials"; AIP-4117 "External account credentials";
# Compute Engine, "About VM metadata".
"""Who works at Google Cloud: credentials of google-auth, from where they were looked for.

Google's own search is not used: without a metadata server it asks three times and says of nothing
it found only that it found nothing.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from google.auth import (
    aws,
    compute_engine,
    external_account_authorized_user,
    identity_pool,
    impersonated_credentials,
    pluggable,
)
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account

from imageport.clouds.gcp.clients import LOOPBACK
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.token_request import METADATA_VARIABLE
from imageport.errors import InputError

SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
"""IAM alone decides; narrower scopes would be a second, hidden list of permissions."""
FILE_VARIABLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
LARGEST_FILE_BYTES: Final = 1024 * 1024
METADATA_SECONDS: Final = 3.0
"""For one answer of the machine's own metadata server, which answers in milliseconds."""
METADATA_TRIES: Final = 2
"""A container's is not there in its first second."""
USER_TOKENS: Final = "https://oauth2.googleapis.com/token"
_IMPERSONATED: Final = re.compile(r"/serviceAccounts/([^/:]+):generateAccessToken$")
_AWS_TOKEN: Final = "urn:ietf:params:aws:token-type:aws4_request"  # noqa: S105 - a type's name
_ADDRESSES: Final = ("token_uri", "token_url", "service_account_impersonation_url")


def credentials_from_worker(settings: GcpSettings) -> Credentials:
    """Return the worker's own credentials.

    Looked for in this order: the file that ``GOOGLE_APPLICATION_CREDENTIALS`` names (federation or
    key), what ``gcloud auth application-default login`` left, the machine's attached account.

    Raises:
        InputError: none of them is there; says what was looked for.
    """
    named = os.environ.get(FILE_VARIABLE, "")
    if named:
        return credentials_from_file(Path(named), settings)
    left = _gcloud_file()
    if left.is_file():
        return credentials_from_file(left, settings)
    problem = _metadata_problem()
    if not problem:
        return compute_engine.Credentials(scopes=SCOPES)
    raise InputError(
        f"Bad Google login: found {FILE_VARIABLE} empty, no '{left}', and {problem}; needed one "
        "of them.",
        hint="Run the worker with an attached service account, name a federation configuration "
        f"in {FILE_VARIABLE}, or fill in credentials in the Google Cloud target.",
        problems=["no credentials found"],
    )


def credentials_from_file(path: Path, settings: GcpSettings) -> Credentials:
    """Return the credentials in a file: federation, impersonation, a user's, or a key.

    Raises:
        InputError: it cannot be read, or is none of these; shows nothing of what is in it.
    """
    try:
        with path.open("rb") as file:
            info = json.loads(file.read(LARGEST_FILE_BYTES))
    except OSError as error:
        raise _bad(f"'{path}'", f"found {error.strerror or 'no file'}, needed a file") from error
    except ValueError:
        raise _bad(f"'{path}'", "found no JSON, needed a credential configuration") from None
    return credentials_from_info(info, settings, source=f"'{path}'")


def credentials_from_info(
    info: Mapping[str, Any], settings: GcpSettings, *, source: str = "in the block"
) -> Credentials:
    """Return the credentials in a document as Google's tools write it.

    Args:
        info: The document; holds a secret unless it is of federation.
        settings: Whose private endpoint the token services are asked at.
        source: Where it comes from, for errors.

    Raises:
        InputError: of no kind that is known, or incomplete.
    """
    kind = info.get("type") if isinstance(info, Mapping) else None
    makers: dict[str, Callable[[dict[str, Any]], Credentials]] = {
        "service_account": _from_key,
        "external_account": _from_federation,
        "impersonated_service_account": partial(
            _from_impersonation, settings=settings, source=source
        ),
        "authorized_user": _from_user,
        "external_account_authorized_user": _from_workforce,
    }
    if kind not in makers:
        raise _bad(source, f"found type {str(kind)[:60]!r}, needed one of {', '.join(makers)}")
    document = _at_endpoints(dict(info), settings)
    _refuse_plain_http(document, source)
    try:
        return makers[kind](document)
    except InputError:
        raise  # of the credentials within
    except (GoogleAuthError, ValueError, KeyError, TypeError, AttributeError):
        # These errors quote what they could not read, which may be the key.
        raise _bad(source, f"found an incomplete document, needed a whole {kind}") from None


def _from_key(info: dict[str, Any]) -> Credentials:
    found: Credentials = service_account.Credentials.from_service_account_info(info, scopes=SCOPES)
    return found


def _from_federation(info: dict[str, Any]) -> Credentials:
    kind: Any = identity_pool.Credentials
    if info.get("subject_token_type") == _AWS_TOKEN:
        kind = aws.Credentials
    elif "executable" in (info.get("credential_source") or {}):
        # Google's library runs it only where the worker's environment allows that.
        kind = pluggable.Credentials
    found: Credentials = kind.from_info(info, scopes=SCOPES)
    return found


def _from_impersonation(info: dict[str, Any], *, settings: GcpSettings, source: str) -> Credentials:
    url = info["service_account_impersonation_url"]
    target = _IMPERSONATED.search(url)
    if target is None:
        raise ValueError("no account in service_account_impersonation_url")
    # Not by the library's own reader, which asks public addresses whatever the document says.
    found: Credentials = impersonated_credentials.Credentials(
        source_credentials=credentials_from_info(
            info["source_credentials"], settings, source=source
        ),
        target_principal=target[1],
        target_scopes=SCOPES,
        delegates=info.get("delegates"),
        quota_project_id=info.get("quota_project_id"),
        iam_endpoint_override=url,
    )
    return found


def _from_user(info: dict[str, Any]) -> Credentials:
    public: Any = user_credentials.Credentials.from_authorized_user_info(info, scopes=SCOPES)
    found: Credentials = public.with_token_uri(info["token_uri"])
    return found


def _from_workforce(info: dict[str, Any]) -> Credentials:
    found: Credentials = external_account_authorized_user.Credentials.from_info(info)
    return found


def _at_endpoints(info: dict[str, Any], settings: GcpSettings) -> dict[str, Any]:
    """Return the document with Google's public token services at the block's private endpoint."""
    if info["type"] == "authorized_user":
        # Google's tools write none, and its library heeds none.
        info["token_uri"] = USER_TOKENS
    if not settings.private_service_connect:
        return info
    for name in _ADDRESSES:
        parts = urlsplit(str(info.get(name) or ""))
        service, _, domain = (parts.hostname or "").partition(".")
        if domain == "googleapis.com":
            info[name] = settings.endpoint(service) + parts.path
    return info


def _refuse_plain_http(info: Mapping[str, Any], source: str) -> None:
    for name in _ADDRESSES:
        parts = urlsplit(str(info.get(name) or "https://"))
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise _bad(source, f"found a {name} without https, needed https or this machine")


def _gcloud_file() -> Path:
    folder = os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config/gcloud"
    return Path(folder, "application_default_credentials.json")


def _metadata_problem() -> str:
    """Return why the machine has no attached account; "" when it has one."""
    host = os.environ.get(METADATA_VARIABLE, "169.254.169.254")
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/email"
    problem = ""
    with requests.Session() as session:
        session.trust_env = False  # no proxy knows this machine's own address
        for attempt in range(METADATA_TRIES):
            try:
                answer = session.get(
                    url, headers={"Metadata-Flavor": "Google"}, timeout=METADATA_SECONDS
                )
            except requests.RequestException:
                problem = f"no metadata server at {host}"
                time.sleep(1.0 if attempt + 1 < METADATA_TRIES else 0.0)
                continue
            if answer.status_code == requests.codes.ok and answer.text.strip():
                return ""
            return "no service account attached to this machine"
    return problem


def _bad(source: str, cause: str) -> InputError:
    return InputError(
        f"Bad Google login {source}: {cause}.",
        hint="Make the file anew with gcloud (iam workload-identity-pools create-cred-config), "
        "or name another.",
        problems=[cause],
    )
