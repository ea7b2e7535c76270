# References: "Using OAuth 2.0 for Server to Server Applications"; Security Token Service API v1,
# token; IAM Service Account Credentials API v1, generateAccessToken, signBlob; RFC 8693.
"""Where tokens come from: assertions, federation, boundaries; and signatures by Google's key."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from imageport.sandbox.gcp.access_boundary import AccessBoundary, BadBoundary
from imageport.sandbox.gcp.account import SERVICE_ACCOUNT
from imageport.sandbox.gcp.call_record import CallRecord
from imageport.sandbox.gcp.credential_files import AUDIENCE, ISSUER, SUBJECT_SECONDS
from imageport.sandbox.gcp.gcs_access import bearer
from imageport.sandbox.gcp.gcs_messages import GcsAnswer, GcsRefusal, GcsRequest, bad_request
from imageport.sandbox.gcp.knobs import Knobs
from imageport.sandbox.gcp.token_store import CLOUD_PLATFORM, BadToken, Caller, TokenStore

ASSERTION_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name
JWT_TOKEN: Final = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105 - a type's name
GET_ACCESS_TOKEN: Final = "iam.serviceAccounts.getAccessToken"  # noqa: S105 - a permission's name
SIGN_BLOB: Final = "iam.serviceAccounts.signBlob"
LONGEST_TOKEN_SECONDS: Final = 3600
"""Without the organisation policy that allows longer ones."""
_ACCOUNT_CALL: Final = re.compile(r"/v1/projects/-/serviceAccounts/([^/:]+):(\w+)")
_LIFETIME: Final = re.compile(r"(\d+)s")


class TokenHttp:
    """Answers ``/token``, ``/v1/token`` and ``/v1/projects/-/serviceAccounts/…``."""

    def __init__(self, tokens: TokenStore, knobs: Knobs, calls: CallRecord) -> None:
        self._tokens = tokens
        self._knobs = knobs
        self._calls = calls

    @staticmethod
    def serves(path: str) -> bool:
        """Tell whether a path is one of these."""
        return path in {"/token", "/v1/token"} or path.startswith("/v1/projects/-/")

    def answer(self, request: GcsRequest) -> GcsAnswer:
        """Answer one request."""
        if request.method != "POST":
            return _oauth_error("invalid_request", "Only POST is supported.")
        path = unquote(request.raw_path)
        if path in {"/token", "/v1/token"}:
            form = dict(parse_qsl(request.body.read().decode(errors="replace")))
            grant = self._assertion if path == "/token" else self._exchange
            try:
                return grant(form)
            except BadToken as error:
                return _oauth_error("invalid_grant", str(error))
            except BadBoundary as error:
                return _oauth_error("invalid_request", str(error))
        found = _ACCOUNT_CALL.fullmatch(path)
        calls: dict[str, Callable[[Caller, dict[str, Any]], GcsAnswer]] = {
            "generateAccessToken": self._generate,
            "signBlob": self._sign,
        }
        if found is None or found[2] not in calls:
            raise GcsRefusal(404, "notFound", "Not found.")
        caller = bearer(self._tokens, request.headers.get("authorization", ""))
        if found[1] != SERVICE_ACCOUNT:
            raise GcsRefusal(404, "notFound", "Unknown service account")
        return calls[found[2]](caller, request.document())

    def _assertion(self, form: Mapping[str, str]) -> GcsAnswer:
        if form.get("grant_type") != ASSERTION_GRANT:
            return _oauth_error("unsupported_grant_type", "Invalid grant_type")
        claims = self._tokens.checked_assertion(form.get("assertion", ""))
        if not str(claims.get("aud", "")).endswith("/token"):
            raise BadToken("Invalid JWT: Failed audience check.")
        scopes = frozenset(str(claims.get("scope", "")).split())
        if not scopes:
            return _oauth_error("invalid_scope", "Invalid OAuth scope or ID token audience.")
        seconds = self._knobs.token_seconds
        token = self._tokens.issue(SERVICE_ACCOUNT, scopes, seconds)
        document = {"access_token": token, "expires_in": int(seconds), "token_type": "Bearer"}
        return GcsAnswer.of(document)

    def _exchange(self, form: Mapping[str, str]) -> GcsAnswer:
        if form.get("grant_type") != EXCHANGE_GRANT:
            return _oauth_error("unsupported_grant_type", "Invalid grant_type")
        if form.get("requested_token_type") != ACCESS_TOKEN:
            return _oauth_error("invalid_request", "Invalid requested_token_type.")
        if form.get("subject_token_type") == ACCESS_TOKEN:
            return self._downscope(form)
        if form.get("subject_token_type") == JWT_TOKEN:
            return self._federate(form)
        return _oauth_error("invalid_request", "Invalid subject_token_type.")

    def _downscope(self, form: Mapping[str, str]) -> GcsAnswer:
        caller = self._tokens.find(form.get("subject_token", ""))
        if CLOUD_PLATFORM not in caller.scopes or caller.boundary is not None:
            return _oauth_error("invalid_grant", "The subject token cannot be downscoped.")
        text = form.get("options", "")
        try:
            # Google's own client quotes the document, and then the whole form.
            options = json.loads(unquote(text) if text.startswith("%") else text)
        except ValueError:
            return _oauth_error("invalid_request", "Invalid options.")
        left = caller.expires - self._tokens.now()
        boundary = AccessBoundary.read(options)
        token = self._tokens.issue(caller.email, caller.scopes, left, boundary)
        return GcsAnswer.of(_exchanged(token, int(left)))

    def _federate(self, form: Mapping[str, str]) -> GcsAnswer:
        claims = self._tokens.issuer_key.claims(form.get("subject_token", ""))
        self._tokens.check_times(claims, SUBJECT_SECONDS)
        if claims.get("iss") != ISSUER:
            raise BadToken("The issuer in ID Token does not match the expected issuer.")
        if not claims.get("aud") == form.get("audience") == AUDIENCE:
            raise BadToken("The audience in ID Token does not match the expected audience.")
        seconds = self._knobs.token_seconds
        scopes = frozenset(form.get("scope", "").split())
        token = self._tokens.issue("", scopes, seconds)
        return GcsAnswer.of(_exchanged(token, int(seconds)))

    def _generate(self, caller: Caller, document: dict[str, Any]) -> GcsAnswer:
        self._check(caller, GET_ACCESS_TOKEN)
        scopes = frozenset(map(str, document.get("scope") or []))
        lifetime = _LIFETIME.fullmatch(str(document.get("lifetime") or "3600s"))
        if not scopes or lifetime is None or not 0 < int(lifetime[1]) <= LONGEST_TOKEN_SECONDS:
            raise bad_request("Request contains an invalid argument.", "badRequest")
        seconds = min(float(lifetime[1]), self._knobs.token_seconds)
        token = self._tokens.issue(SERVICE_ACCOUNT, scopes, seconds)
        # Whole seconds, as clients of Google's libraries parse them.
        expires = datetime.fromtimestamp(int(self._tokens.now() + seconds), UTC)
        stamp = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
        return GcsAnswer.of({"accessToken": token, "expireTime": stamp})

    def _sign(self, caller: Caller, document: dict[str, Any]) -> GcsAnswer:
        self._check(caller, SIGN_BLOB)
        try:
            payload = base64.b64decode(document["payload"], validate=True)
        except (KeyError, TypeError, binascii.Error) as error:
            raise bad_request("Invalid value at 'payload' (TYPE_BYTES)", "badRequest") from error
        key = self._tokens.system_key
        signed = base64.b64encode(key.sign(payload)).decode()
        return GcsAnswer.of({"keyId": key.id, "signedBlob": signed})

    def _check(self, caller: Caller, permission: str) -> None:
        self._calls.record(permission)
        scoped = CLOUD_PLATFORM in caller.scopes or "https://www.googleapis.com/auth/iam" in (
            caller.scopes
        )
        if permission in self._knobs.denied or caller.boundary is not None or not scoped:
            text = f"Permission '{permission}' denied on resource (or it may not exist)."
            raise GcsRefusal(403, "forbidden", text)


def _exchanged(token: str, seconds: int) -> dict[str, Any]:
    return {
        "access_token": token,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": seconds,
    }


def _oauth_error(code: str, text: str) -> GcsAnswer:
    return GcsAnswer.of({"error": code, "error_description": text}, 400)
