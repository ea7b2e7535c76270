"""The few programs that mean something else inside a machine than on this computer."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from imageport.sandbox.firmware import probe_kvm
from imageport.sandbox.processes import MARK, SERVICE_MARK

_SHUTDOWN = """#!/bin/sh
# Ends the emulated machine, not this computer.
printf '%s\\n' "$*" >> {requests}
"""
_POWER_OFF = """#!/bin/sh
printf 'now\\n' >> {requests}
"""
_APT = """#!/bin/sh
echo "apt-get: the sandbox's machines install nothing on this computer;" \\
     "install python3-guestfs and libguestfs-tools here (imageport doctor)" >&2
exit 100
"""
_PASSED_ON = (
    MARK,
    SERVICE_MARK,
    "LIBGUESTFS_CACHEDIR",
    "LIBGUESTFS_HV",
    "SUPERMIN_KERNEL",
    "SUPERMIN_MODULES",
)


def write_programs(folder: Path, requests: Path) -> Path:
    """Write ``shutdown`` and its relatives; what they ask for lands in ``requests``."""
    folder.mkdir(exist_ok=True)
    quoted = shlex.quote(str(requests))
    texts = {
        "shutdown": _SHUTDOWN.format(requests=quoted),
        "poweroff": _POWER_OFF.format(requests=quoted),
        "halt": _POWER_OFF.format(requests=quoted),
        "apt-get": _APT,
    }
    for name, text in texts.items():
        program = folder / name
        program.write_text(text)
        program.chmod(0o755)
    return folder


def program_environment(programs: Path, work: Path, devices: Path) -> dict[str, str]:
    """Return all that a user-data program gets to know of this computer."""
    environment = {
        "PATH": f"{programs}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(work),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "IMAGEPORT_DEVICE_ROOT": str(devices),
        "LIBGUESTFS_BACKEND": "direct",
        # By default it follows TMPDIR: the appliance would be built anew for every machine.
        "LIBGUESTFS_CACHEDIR": "/var/tmp",  # noqa: S108 - libguestfs's own default
        "LIBGUESTFS_TMPDIR": str(work),
    }
    if not probe_kvm():
        environment["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return environment
