"""Which Windows this is: the name people know it by, its build and its processor."""

from __future__ import annotations

import re

from imageport.compose.hives.registry import Registry
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.pe_header import X64, pe_machine
from imageport.errors import EngineFailed

WINDOWS_NT = "Microsoft\\Windows NT\\CurrentVersion"
_FIRST_BUILD_OF_11 = 22000
"""Windows 11 still calls itself 10 in ProductName."""
_SERVER_RELEASES = {14393: "2016", 17763: "2019", 20348: "2022", 26100: "2025"}
"""By build; a server's ProductName may lack the year, or keep the one it was upgraded from."""
_SERVER_NAME = re.compile(r"Windows Server(?: \d{4}(?: R2)?)?")
_MACHINES = {X64: "x86_64", 0x014C: "i386", 0xAA64: "arm64"}
"""PE machine types. Reference: PE format, COFF file header."""
_NAMED_MACHINES = {"AMD64": "x86_64", "X86": "i386", "ARM64": "arm64"}
"""The same as Windows names them in PROCESSOR_ARCHITECTURE."""


def product_name(registry: Registry) -> str:
    """Return the name that Microsoft sells it by, like ``Windows Server 2025 Datacenter``."""
    name = registry.text("SOFTWARE", WINDOWS_NT, "ProductName")
    kind = registry.text("SOFTWARE", WINDOWS_NT, "InstallationType")
    text = registry.text("SOFTWARE", WINDOWS_NT, "CurrentBuild")
    build = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
    if name.startswith("Windows 10") and build >= _FIRST_BUILD_OF_11:
        return "Windows 11" + name.removeprefix("Windows 10")
    if kind.startswith("Server") and build in _SERVER_RELEASES:
        name = _SERVER_NAME.sub(f"Windows Server {_SERVER_RELEASES[build]}", name, count=1)
    return f"{name} (Server Core)" if kind == "Server Core" else name


def build_number(registry: Registry) -> str:
    """Return the whole version, like ``10.0.20348.2227``."""
    major = registry.number("SOFTWARE", WINDOWS_NT, "CurrentMajorVersionNumber")
    build = registry.text("SOFTWARE", WINDOWS_NT, "CurrentBuild")
    revision = registry.number("SOFTWARE", WINDOWS_NT, "UBR")
    parts = [str(major) if major else "", "0" if major else "", build, str(revision or "")]
    return ".".join(part for part in parts if part)


def architecture(registry: Registry, files: GuestFiles, current: str) -> str:
    """Return the machine type of the kernel's own PE header, else what the registry says."""
    path = "Windows/System32/ntoskrnl.exe"
    try:
        head = files.read(path, 4096)
    except EngineFailed:  # system files may be compressed in a way that NTFS' driver cannot read
        place = f"{current}\\Control\\Session Manager\\Environment"
        named = registry.text("SYSTEM", place, "PROCESSOR_ARCHITECTURE")
        return _NAMED_MACHINES.get(named.upper(), named)
    machine = pe_machine(head)
    return "" if machine is None else _MACHINES.get(machine, f"machine {machine:#06x}")
