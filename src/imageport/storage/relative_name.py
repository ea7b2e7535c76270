"""Names below a folder's root: checked once, so that no backend can be talked out of its root."""

from __future__ import annotations

from imageport.errors import InputError

_REASONS = {
    "\0": "a NUL character",
    "\\": "a backslash (parts are separated by '/')",
    ":": "a colon (drive letters and streams are not addressed here)",
}


def split_name(name: str, location: str, *, root_allowed: bool = False) -> tuple[str, ...]:
    """Return the parts of a relative name; `InputError` when it is absolute or leaves the root."""
    if not name:
        if root_allowed:
            return ()
        raise InputError(f"Bad name below '{location}': found an empty name, needed a file name.")
    parts = tuple(name.split("/"))
    reason = next((text for mark, text in _REASONS.items() if mark in name), "")
    if not reason and name.startswith("/"):
        reason = "an absolute path"
    if not reason and any(part in {"", ".", ".."} for part in parts):
        reason = "an empty part, '.' or '..'"
    if reason:
        raise InputError(f"Bad name {name!r} below '{location}': found {reason}.", name=name)
    return parts
