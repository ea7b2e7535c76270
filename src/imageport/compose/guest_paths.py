"""How paths that the guest's registry names lead to files of its Windows volume, and back."""

from __future__ import annotations

import re

from imageport.compose.hives.registry import Registry, service_path

_PREFIXES = (
    (re.compile(r"^\\\?\?\\", re.IGNORECASE), ""),
    (re.compile(r"^\\systemroot\\", re.IGNORECASE), "Windows\\"),
    (re.compile(r"^%(systemroot|windir)%\\", re.IGNORECASE), "Windows\\"),
    (re.compile(r"^%(systemdrive)%\\", re.IGNORECASE), ""),
    (re.compile(r"^%programfiles%\\", re.IGNORECASE), "Program Files\\"),
    (re.compile(r"^c:\\", re.IGNORECASE), ""),
    (re.compile(r"^system32\\", re.IGNORECASE), "Windows\\System32\\"),
)


def service_binary(registry: Registry, control_set: str, service: str) -> str:
    """Return the file that a service runs, as a path from the volume's root."""
    image = registry.text("SYSTEM", service_path(control_set, service), "ImagePath")
    if not image:  # Windows' own rule for drivers that name no file
        return f"Windows/System32/drivers/{service}.sys"
    return guest_path(image)


def shown_file(path: str) -> str:
    r"""Return a path of ours, ``Windows/System32``, as Windows writes it: ``\Windows\System32``."""
    return "\\" + path.replace("/", "\\")


def guest_path(image_path: str) -> str:
    r"""Return the file of an ImagePath, without its arguments, from the volume's root.

    ``"C:\Program Files\x\y.exe" -run`` becomes ``Program Files/x/y.exe``.
    """
    text = image_path.strip()
    if text.startswith('"'):
        text = text[1:].partition('"')[0]
    else:
        match = re.match(r"(.*?\.(?:exe|sys|dll|com|efi))(?:\s|$)", text, re.IGNORECASE)
        text = match[1] if match else text
    for pattern, replacement in _PREFIXES:
        text = pattern.sub(replacement.replace("\\", "\\\\"), text)
    return text.replace("\\", "/").lstrip("/")
