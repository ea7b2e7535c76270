"""The memory cloud in trouble: throttles, fails and loses answers as the emulated ones do."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any, Final

from imageport.cloud import Cloud
from imageport.errors import CloudThrottled, CloudUnavailable

FAULT_RATE: Final = 0.25
REQUESTS: Final = frozenset(
    {
        "exists", "make_disk", "snapshot", "delete_disk", "delete_snapshot", "list_ours",
        "delete_resource", "open_snapshot", "begin", "resume", "put", "take_from_parent", "lost",
        "commit", "abort",
    }
)  # fmt: skip
"""Methods of cloud and target that would ask a service."""


class Trouble:
    """What happens to requests; calm until it is named."""

    def __init__(self) -> None:
        self.name = ""
        self._random = random.Random(0)  # noqa: S311 - repeatable on purpose
        self._lost: set[str] = set()

    def turn(self, name: str) -> None:
        """Begin trouble of a kind, or end it with an empty name."""
        self.name = name
        self._lost.clear()

    def around(self, request: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Carry a request out, or not, and answer, or not."""
        if self.name == "losing answers" and request not in self._lost:
            self._lost.add(request)
            call(*args, **options)
            raise CloudUnavailable(f"Cannot {request}: the answer was lost.")
        if not self.name or self._random.random() >= FAULT_RATE:
            return call(*args, **options)
        if self.name == "throttled":
            raise CloudThrottled(f"Cannot {request}: too many requests.")
        if self._random.random() < 0.5:
            call(*args, **options)
        raise CloudUnavailable(f"Cannot {request}: an internal error.")


class Faulty:
    """A cloud or a target whose requests go through trouble."""

    def __init__(self, inner: Any, trouble: Trouble) -> None:
        self._inner = inner
        self._trouble = trouble

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "upload_target":
            return lambda *args, **options: Faulty(found(*args, **options), self._trouble)
        if name in REQUESTS:
            return functools.partial(self._trouble.around, name, found)
        return found


def in_trouble(cloud: Cloud, trouble: Trouble) -> Any:
    """Return the cloud with every request going through trouble."""
    return Faulty(cloud, trouble)
