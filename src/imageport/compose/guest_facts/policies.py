r"""Policies that could keep the first boot from its work, and those that win over what steps set.

First boot runs ``cmd.exe`` as SYSTEM, ``pnputil`` and ``msiexec``, and starts PowerShell where an
operator's own step asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.guest_paths import shown_file
from imageport.compose.hives.registry import DISABLED, Registry, service_path
from imageport.compose.volumes.guest_files import GuestFiles

_POLICIES = "Policies\\Microsoft\\Windows"
_CODE_INTEGRITY = "Windows/System32/CodeIntegrity"
_UNRESTRICTED = 0x40000
"""Software restriction: the level at which everything may run."""
_ENFORCED = 1
_MSI_FORBIDDEN = 2
_DENIED_DEVICES = {
    "DenyUnspecified": "devices that no other rule allows get no driver",
    "DenyDeviceIDs": "devices by id get no driver",
    "DenyDeviceClasses": "devices by class get no driver",
    "DenyInstanceIDs": "devices by instance get no driver",
}
_OVERRIDING = (
    ("W32Time\\Parameters", "NtpServer", "Windows asks this time server, not the cloud's"),
    ("W32Time\\Parameters", "Type", "this decides where Windows takes the time from"),
    ("Power\\PowerSettings", "ActivePowerScheme", "this power scheme is the active one"),
)
"""Texts below Policies\\Microsoft; each wins over the setting of the same name."""
_SCANNERS = {
    "CSFalconService": "CrowdStrike Falcon",
    "SentinelAgent": "SentinelOne",
    "CylanceSvc": "Cylance",
    "CbDefense": "Carbon Black",
    "cyserver": "Cortex XDR",
    "SepMasterService": "Symantec Endpoint Protection",
    "masvc": "Trellix",
    "ds_agent": "Trend Micro",
    "Sophos MCS Agent": "Sophos",
    "ekrn": "ESET",
}
"""Services of products that hold up unknown programs and drivers."""


def blocking_policies(registry: Registry, files: GuestFiles, current: str) -> tuple[str, ...]:
    """Return one line per policy: its key and value, and what it does."""
    return (
        *_powershell(registry),
        *_command_prompt(registry),
        *_device_installation(registry),
        *_installer(registry),
        *_software_restriction(registry),
        *_app_locker(registry),
        *_code_integrity(files),
        *_scanners(registry, current),
        *_overriding(registry),
    )


def _line(key: str, name: str, value: object, meaning: str) -> str:
    return f"HKLM\\SOFTWARE\\{key} {name}={value}: {meaning}"


def _powershell(registry: Registry) -> Iterator[str]:
    key = f"{_POLICIES}\\PowerShell"
    policy = registry.text("SOFTWARE", key, "ExecutionPolicy")
    if registry.number("SOFTWARE", key, "EnableScripts") == 0:
        yield _line(key, "EnableScripts", 0, "no PowerShell script runs")
    elif policy.lower() in {"allsigned", "restricted"}:
        yield _line(key, "ExecutionPolicy", policy, "unsigned PowerShell scripts do not run")


def _command_prompt(registry: Registry) -> Iterator[str]:
    key = f"{_POLICIES}\\System"
    value = registry.number("SOFTWARE", key, "DisableCMD")
    if value:
        meaning = "cmd.exe runs no script" if value == 1 else "cmd.exe takes no commands"
        yield _line(key, "DisableCMD", value, meaning)


def _device_installation(registry: Registry) -> Iterator[str]:
    key = f"{_POLICIES}\\DeviceInstall\\Restrictions"
    for name, meaning in _DENIED_DEVICES.items():
        if registry.number("SOFTWARE", key, name) == 1:
            yield _line(key, name, 1, meaning)


def _installer(registry: Registry) -> Iterator[str]:
    key = f"{_POLICIES}\\Installer"
    if registry.number("SOFTWARE", key, "DisableMSI") == _MSI_FORBIDDEN:
        yield _line(key, "DisableMSI", _MSI_FORBIDDEN, "no MSI is installed")


def _software_restriction(registry: Registry) -> Iterator[str]:
    key = f"{_POLICIES}\\Safer\\CodeIdentifiers"
    level = registry.number("SOFTWARE", key, "DefaultLevel")
    if not registry.number("SOFTWARE", key, "TransparentEnabled") or level is None:
        return
    if level < _UNRESTRICTED:
        yield _line(key, "DefaultLevel", level, "programs without a rule of theirs do not run")
    paths = registry.key("SOFTWARE", f"{key}\\0\\Paths")
    forbidden = len(paths.children()) if paths else 0
    if forbidden:
        yield _line(f"{key}\\0", "Paths", forbidden, "programs in some paths do not run")


def _app_locker(registry: Registry) -> Iterator[str]:
    root = f"{_POLICIES}\\SrpV2"
    key = registry.key("SOFTWARE", root)
    for collection in key.children() if key else []:
        place = f"{root}\\{collection.name}"
        rules = len(collection.children())
        if rules and registry.number("SOFTWARE", place, "EnforcementMode") == _ENFORCED:
            yield _line(place, "EnforcementMode", 1, f"AppLocker enforces {rules} rules")


def _code_integrity(files: GuestFiles) -> Iterator[str]:
    active = f"{_CODE_INTEGRITY}/CiPolicies/Active"
    found = [f"{active}/{n}" for n in files.names(active) if n.lower().endswith(".cip")]
    if files.exists(f"{_CODE_INTEGRITY}/SiPolicy.p7b"):
        found.insert(0, f"{_CODE_INTEGRITY}/SiPolicy.p7b")
    for path in found:
        yield f"{shown_file(path)}: application control decides which programs and drivers may run"


def _overriding(registry: Registry) -> Iterator[str]:
    for below, name, meaning in _OVERRIDING:
        key = f"Policies\\Microsoft\\{below}"
        text = registry.text("SOFTWARE", key, name)
        if text:
            yield _line(key, name, text, meaning)
    key = f"{_POLICIES}\\System"
    if registry.number("SOFTWARE", key, "HiberbootEnabled") == 1:
        yield _line(key, "HiberbootEnabled", 1, "fast startup stays on")


def _scanners(registry: Registry, current: str) -> Iterator[str]:
    for service, product in _SCANNERS.items():
        start = registry.start_of(current, service)
        if start is not None and start < DISABLED:
            place = f"HKLM\\SYSTEM\\{service_path(current, service)}"
            yield f"{place} Start={start}: {product} may hold up programs and drivers"
