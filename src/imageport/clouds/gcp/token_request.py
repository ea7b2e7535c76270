# References: google-auth, "transport.requests.Request"; Compute Engine, "About VM metadata"; EC2,
# Azure, "Instance metadata service".
"""How credentials ask token services: by the block's proxy and authority, and not for long."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request

from imageport.clouds.gcp.settings import GcpSettings

TOKEN_SECONDS: Final = 20.0
"""For one answer of a token service; hours of work must not hang on a metadata server."""
PASSES: Final = frozenset({408, 429, 500, 502, 503, 504})
METADATA_VARIABLE: Final = "GCE_METADATA_HOST"
"""By which google-auth is told of another metadata server than the usual."""
METADATA_NAMES: Final = frozenset({"metadata.google.internal", "fd00:ec2::254", "fd20:ce::254"})
"""Beside 169.254.169.254, where all three clouds' servers are, the last two for IPv6 alone."""
_DIRECT: Final = {"proxies": {"http": "", "https": ""}}
"""Names both schemes, or the worker's environment would fill them in."""


class TokenRequest(Request):
    """Asks once; a machine's own metadata server without any proxy.

    A proxy would answer for its own machine: with an error, or with its own account.
    """

    def __init__(self, settings: GcpSettings) -> None:
        super().__init__(requests.Session())
        self.network = network_options(settings)

    def __call__(self, url: str, *args: Any, **options: Any) -> Any:
        """Ask once; whoever calls decides about asking again.

        Raises:
            TransportError: nothing answered, or what did may answer otherwise a little later.
        """
        given = options.pop("timeout", None)
        seconds = given if isinstance(given, (int, float)) else TOKEN_SECONDS
        network = _DIRECT if is_metadata_server(url) else self.network
        options |= network | {"timeout": min(seconds, TOKEN_SECONDS)}
        answer = super().__call__(url, *args, **options)  # type: ignore[no-untyped-call]
        if answer.status in PASSES:
            # Told by its status here: what google-auth raises for it is often a refusal.
            host = urlsplit(url).hostname
            raise TransportError(f"the token service at {host} answered HTTP {answer.status}")
        return answer


@contextmanager
def readable_answers() -> Iterator[None]:
    """Tell an answer that is of no token service as `TransportError`, like silence.

    google-auth takes every answer with status 200 for one: a gateway's page is a `ValueError`.
    """
    try:
        yield
    except GoogleAuthError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        cause = type(error).__name__  # its text may show what was answered
        raise TransportError(f"a token service's answer cannot be read ({cause})") from None


def network_options(settings: GcpSettings) -> dict[str, Any]:
    """Return proxy and authority of the settings as options of each request.

    As attributes of a session they would give way to the worker's environment.
    """
    network: dict[str, Any] = {}
    if settings.proxy:
        network["proxies"] = {"http": settings.proxy, "https": settings.proxy}
    if settings.ca_bundle:
        network["verify"] = settings.ca_bundle
    return network


def is_metadata_server(url: str) -> bool:
    """Tell whether a URL leads to what only this machine reaches, and no proxy."""
    host = urlsplit(url).hostname or ""
    named = urlsplit(f"//{os.environ.get(METADATA_VARIABLE, '')}").hostname
    if host in METADATA_NAMES or host == named:
        return True
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
