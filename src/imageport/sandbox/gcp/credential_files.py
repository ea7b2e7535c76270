# References: google-auth, service account keys and external_account configurations (AIP-4117).
"""The files by which Google's own clients become the emulated service account."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

from imageport.sandbox.gcp.account import FEDERATION_FILE, KEY_FILE, PROJECT, SERVICE_ACCOUNT
from imageport.sandbox.gcp.token_store import TokenStore

ISSUER: Final = "https://identity.lab.example"
POOL: Final = "projects/123456789012/locations/global/workloadIdentityPools/lab/providers/worker"
AUDIENCE: Final = f"//iam.googleapis.com/{POOL}"
SUBJECT: Final = "system:serviceaccount:imageport:worker"
SUBJECT_FILE: Final = "worker.jwt"
"""Of the foreign token."""
SUBJECT_SECONDS: Final = 30 * 24 * 3600
"""Of the foreign token, which a real provider would renew every hour."""


def write_credential_files(root: Path, tokens: TokenStore, endpoint: str) -> None:
    """Write a key file and a federation file below ``root``, both for ``endpoint``."""
    _write(root / KEY_FILE, json.dumps(_key_document(tokens, endpoint), indent=2))
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "iat": now}
    _write(
        root / SUBJECT_FILE,
        tokens.issuer_key.jwt({**claims, "exp": now + SUBJECT_SECONDS}),
    )
    document = {
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{endpoint}/v1/token",
        "service_account_impersonation_url": f"{endpoint}/v1/projects/-/serviceAccounts/"
        f"{SERVICE_ACCOUNT}:generateAccessToken",
        "credential_source": {"file": str(root / SUBJECT_FILE)},
    }
    _write(root / FEDERATION_FILE, json.dumps(document, indent=2))


def _key_document(tokens: TokenStore, endpoint: str) -> dict[str, Any]:
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": tokens.account_key.id,
        "private_key": tokens.account_key.pem,
        "client_email": SERVICE_ACCOUNT,
        "client_id": "100000000000000000000",
        "auth_uri": f"{endpoint}/o/oauth2/auth",
        "token_uri": f"{endpoint}/token",
    }


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_text(text)
    part.rename(path)
