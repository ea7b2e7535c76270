"""Verdict items about fitting Windows to a cloud; some are asked by one cloud's machines only."""

from __future__ import annotations

from imageport.compose.boot_store import (
    BOOT_MANAGER,
    EMS_SETTINGS,
    BootEntry,
    Element,
    default_entry,
    element_number,
    ems_switches,
)
from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import Action, EngineJob
from imageport.compose.drivers.installed_drivers import infs_for
from imageport.compose.first_boot.plan import SET_EMS, read_plan
from imageport.compose.guest_facts.software import DOTNET
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import BOOT_STORE_HIVE, DISABLED
from imageport.compose.steps.boot.bring_disks_online import (
    ONLINE_ALL,
    BringDisksOnline,
    san_policy,
)
from imageport.compose.steps.boot.quiet_serial_port import KEEP, ON, console_port, switch_word
from imageport.compose.verdict.evidence import Check, Evidence, Finding

_AUTOMATIC_LOGON = "Microsoft\\Windows NT\\CurrentVersion\\Winlogon"
_AGENT_SERVICES = ("RdAgent", "WindowsAzureGuestAgent")


def disks_online(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Windows brings a new disk online by itself."""
    finding = Finding()
    for control_set in evidence.registry.control_sets:
        policy = san_policy(evidence.registry, control_set)
        where = finding.facts if policy == ONLINE_ALL else finding.problems
        needed = "" if policy == ONLINE_ALL else f", needed {ONLINE_ALL}"
        where.append(f"{control_set}: SanPolicy is {policy}{needed}")
    return finding


def dvd_drive(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """The DVD drive's driver exists and may start."""
    finding = Finding()
    for control_set in evidence.registry.control_sets:
        start = evidence.registry.start_of(control_set, "cdrom")
        is_fine = start is not None and start != DISABLED
        where = finding.facts if is_fine else finding.problems
        where.append(f"{control_set}: cdrom Start is {start}")
    return finding


def faster_adapters(evidence: Evidence, _job: EngineJob, target: CloudTarget) -> Finding:
    """Told only: which Accelerated Networking adapters have a driver already."""
    finding = Finding()
    for hardware_id, name in target.faster_nic_ids:
        infs = ", ".join(inf for _, inf in infs_for(evidence.registry, hardware_id))
        what = f"served by {infs}" if infs else "no driver, the synthetic adapter carries it all"
        finding.facts.append(f"{name}, {hardware_id}: {what}")
    return finding


def vm_agent(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """Told only: whether the VM agent is there; its absence stops no machine."""
    current = evidence.registry.current_control_set
    starts = {name: evidence.registry.start_of(current, name) for name in _AGENT_SERVICES}
    there = [f"{name} Start {start}" for name, start in starts.items() if start is not None]
    if there:
        return Finding(facts=[f"installed: {', '.join(there)}"])
    chosen = job.options.azure_vm_agent
    return Finding(facts=[f"not installed; chosen: {chosen}" if chosen else "not chosen"])


def clock(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Windows reads the machine's clock as UTC."""
    finding = Finding()
    for control_set in evidence.registry.control_sets:
        path = f"{control_set}\\Control\\TimeZoneInformation"
        found = evidence.registry.number("SYSTEM", path, "RealTimeIsUniversal")
        where = finding.facts if found == 1 else finding.problems
        needed = "" if found == 1 else ", needed 1"
        where.append(f"{control_set}: RealTimeIsUniversal is {found}{needed}")
    return finding


def serial_port(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    """Emergency management services leave the port to first boot, and are then as asked."""
    store = evidence.registry.hives.get(BOOT_STORE_HIVE)
    if store is None:
        return Finding(facts=["no boot store to look into"])
    found = {switch_word(*switch) for switch in ems_switches(store)}
    if job.action is not Action.VERIFY:
        wanted: set[str] = set()
    elif job.options.serial_console == ON:
        wanted = _console(store)
    else:
        wanted = _kept(evidence) if job.options.serial_console == KEEP else set()
    finding = Finding(facts=[f"EMS is on by {', '.join(sorted(found)) or 'no switch'}"])
    finding.problems += [f"EMS is on by {word}" for word in sorted(found - wanted)]
    finding.problems += [f"EMS is not on by {word}" for word in sorted(wanted - found)]
    if job.action is Action.VERIFY and job.options.serial_console == ON:
        port, needed = (
            element_number(store, EMS_SETTINGS, Element.EMS_PORT),
            console_port(target.name),
        )
        if port != needed:
            finding.problems.append(f"EMS is on port {port}, needed {needed}")
    return finding


def _console(store: Hive) -> set[str]:
    """Return the switches that a console needs: the default entry's and the boot manager's."""
    entry = default_entry(store)
    loader = {switch_word(entry.identifier, Element.EMS)} if isinstance(entry, BootEntry) else set()
    return loader | {switch_word(BOOT_MANAGER, Element.BOOT_EMS)}


def _kept(evidence: Evidence) -> set[str]:
    """Return the switches that first boot was to put back."""
    steps = read_plan(evidence.files).steps
    return {step.arguments[2] for step in steps if step.verb == SET_EMS and step.arguments[2:]}


def automatic_logon(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Told only: whether somebody is signed in by himself at every start, and never who."""
    if evidence.registry.text("SOFTWARE", _AUTOMATIC_LOGON, "AutoAdminLogon") != "1":
        return Finding(facts=["nobody is signed in automatically"])
    password = evidence.registry.value("SOFTWARE", _AUTOMATIC_LOGON, "DefaultPassword")
    where = "in plain text in the registry" if password else "not in the registry's plain text"
    return Finding(facts=[f"a user is signed in automatically; the password is {where}"])


def dotnet(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Told only: which .NET Framework is there; Amazon's own agents need 4.5 or later."""
    release = evidence.registry.number("SOFTWARE", DOTNET, "Release")
    return Finding(facts=[f".NET Framework 4, release {release}" if release else "not installed"])


_AZURE = ("azure",)
CHECKS = (
    Check("disks_online", disks_online, clouds=BringDisksOnline.clouds),
    Check("dvd_drive", dvd_drive, clouds=_AZURE),
    Check("faster_adapters", faster_adapters, clouds=_AZURE),
    Check("vm_agent", vm_agent, clouds=_AZURE),
    Check("clock", clock),
    Check("serial_port", serial_port),
    Check("automatic_logon", automatic_logon),
    Check("dotnet", dotnet, clouds=("aws",)),
)
