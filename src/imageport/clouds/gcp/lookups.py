# References: Compute Engine, "Troubleshooting API errors" (404, 400 of a name that cannot be).
"""Looking at what the operator named: there, or not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.waiting import retried
from imageport.errors import CloudRefused, ResourceGone

API_OFF: Final = frozenset({"accessNotConfigured", "SERVICE_DISABLED"})
"""What ``gcp_code`` holds when the API is not switched on in the worker's project."""

Found = TypeVar("Found")


def look_up(action: str, subject: str, call: Callable[[], Found]) -> Found | None:
    """Return what a request answers, None when there is no such thing; asked again when it may.

    Raises:
        CloudError: as for `imageport.clouds.gcp.error_mapping.asked`.
    """

    def ask() -> Found:
        with asked(action, subject):
            return call()

    try:
        return retried(ask)
    except ResourceGone:
        return None
    except CloudRefused as error:
        if error.fields.get("status") not in {400, 404}:
            raise
        return None
