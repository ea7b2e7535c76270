"""What the tests of driver packages share: the step alone on a guest, and foreign readers."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from imageport.compose.contract import Change, EngineOptions
from imageport.compose.drivers.driver_packages import find_packages
from imageport.compose.step import Context
from imageport.compose.steps.drivers.install_drivers import InstallDrivers
from imageport.compose.volumes.guest_files import PendingFiles

SETS = ("ControlSet001", "ControlSet002")
GCP = EngineOptions(cloud="gcp")
STORE = "Windows/System32/DriverStore/FileRepository"
CATALOGUES = "Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
TESTDATA = Path(os.environ.get("IMAGEPORT_TESTDATA", "/nonexistent")) / "hives"
GOLDEN = Path(__file__).parent / "drivers"


def install(guest: Any, options: EngineOptions | None = None) -> list[Change]:
    """Run the step alone on the guest's folders, and keep what it did."""
    chosen = options or EngineOptions()
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        facts = guest.facts(registry, chosen)
        pending = PendingFiles(guest.windows)
        packages, refusals = find_packages(guest.payload, chosen.drivers, chosen.cloud)
        assert not refusals
        context = Context(
            chosen, facts.target, facts.inspection, registry, pending, None, None, tuple(packages)
        )
        step = InstallDrivers()
        context.recorder.begin(step.name, step.tier)
        step.run(context)
        for name, hive in registry.hives.items():
            hive.commit()
            if name != "BCD":
                guest.hive(name).write_bytes(hive.path.read_bytes())
        pending.apply()
        return context.recorder.changes


def reason(guest: Any, options: EngineOptions | None = None) -> str:
    chosen = options or EngineOptions()
    with ExitStack() as stack:
        facts = guest.facts(guest.registry(stack), chosen)
        packages, _ = find_packages(guest.payload, chosen.drivers, chosen.cloud)
        facts.packages = tuple(packages)
        return InstallDrivers().reason(facts)


def refused(guest: Any, options: EngineOptions) -> list[str]:
    with ExitStack() as stack:
        facts = guest.facts(guest.registry(stack), options)
        packages, _ = find_packages(guest.payload, options.drivers, options.cloud)
        facts.packages = tuple(packages)
        return [found.code for found in InstallDrivers().guest_problems(facts)]


def hivexget(hive: Path, key: str, name: str) -> str:
    done = subprocess.run(
        ["hivexget", hive, f"\\{key}", name],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else "(missing)"


def store_of(guest: Any, name: str) -> str:
    (found,) = (n for n in guest.windows.names(STORE) if n.startswith(f"{name}.inf_amd64_"))
    return str(found)
