# References: Cloud Storage pricing, "Operations": class A, class B and free; IAM permissions.
"""Which permissions were needed, and what the requests would have cost."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final

FREE: Final = "free"
CLASS_A: Final = "A"
CLASS_B: Final = "B"


@dataclass(slots=True)
class Traffic:
    """Of one kind of request."""

    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class CallRecord:
    """What was asked so far; used from all request threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._permissions: set[str] = set()
        self._traffic: dict[tuple[str, str], Traffic] = {}

    def record(self, permission: str) -> None:
        """Note a permission that a request needs, ``compute.images.create``."""
        with self._lock:
            self._permissions.add(permission)

    def count(self, name: str, price_class: str, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Note a request, ``storage.objects.insert``, with what Google would bill it as."""
        with self._lock:
            traffic = self._traffic.setdefault((name, price_class), Traffic())
            traffic.requests += 1
            traffic.bytes_in += bytes_in
            traffic.bytes_out += bytes_out

    def forget(self) -> None:
        """Start anew."""
        with self._lock:
            self._permissions.clear()
            self._traffic.clear()

    def document(self) -> dict[str, Any]:
        """Return the permissions, sorted, and the requests by name."""
        with self._lock:
            requests = {
                name: {
                    "class": price_class,
                    "requests": traffic.requests,
                    "bytes_in": traffic.bytes_in,
                    "bytes_out": traffic.bytes_out,
                }
                for (name, price_class), traffic in sorted(self._traffic.items())
            }
            return {"permissions": sorted(self._permissions), "requests": requests}
