"""One thing that was looked at, and how a table and a page show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from imageport.errors import ImageportError


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; an ``optional`` one that did not pass stops nobody."""

    name: str
    passed: bool
    found: str
    mend: str = ""
    optional: bool = False

    @property
    def mark(self) -> str:
        """Return ``ok``, ``FAIL`` or, for what is optional, ``note``."""
        if self.passed:
            return "ok"
        return "note" if self.optional else "FAIL"

    def row(self) -> dict[str, str]:
        """Return the check as a row of a table."""
        mend = "" if self.passed else self.mend
        return {"": self.mark, "what": self.name, "found": self.found, "how to mend it": mend}


def failed(name: str, error: ImageportError, *, optional: bool = False) -> Check:
    """Return the check that ended in an error."""
    return Check(name, passed=False, found=error.message, mend=error.hint, optional=optional)


def all_well(checks: Iterable[Check]) -> bool:
    """Tell whether nothing failed that a run needs."""
    return not any(check.mark == "FAIL" for check in checks)
