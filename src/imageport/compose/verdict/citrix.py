"""Verdict items about Citrix software: there, whole, startable, of the wanted version."""

from __future__ import annotations

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import Action, EngineJob, EngineOptions, Installer, Software
from imageport.compose.first_boot.plan import INSTALL_PACKAGE, PROGRAMS, read_plan
from imageport.compose.installers import (
    brings,
    installed_version,
    is_at_least,
    is_comparable,
    is_needed,
)
from imageport.compose.steps.citrix.clear_pvs_state import left_to_start
from imageport.compose.steps.citrix.keep_machine_identity_dependency import wrong_dependencies
from imageport.compose.steps.citrix.point_vda_at_controllers import (
    cached_controllers,
    vda_keys,
)
from imageport.compose.steps.citrix.provisioning_state import (
    IDENTITY_AGENT,
    PERSONALITY,
    device_values,
    write_caches,
)
from imageport.compose.steps.citrix.stage_installers import program_name
from imageport.compose.verdict.evidence import (
    Check,
    Evidence,
    Finding,
    Obstacle,
    Unstartable,
    When,
    startable,
)
from imageport.compose.volumes.file_version import file_version

_NAMES = {
    Software.PVS_TARGET: "target device software",
    Software.VDA: "Virtual Delivery Agent",
    Software.MACHINE_IDENTITY: "machine identity agent",
    Software.MCS_IO: "write cache driver",
}
_SERVICES = {
    Software.PVS_TARGET: (
        ("BNDevice",),
        ("bnistack6", "bnistack"),
        ("CVhdMp", "CVhdBusP6"),
        ("CFsDep2",),
    ),
    Software.VDA: (("BrokerAgent",),),
    Software.MACHINE_IDENTITY: ((IDENTITY_AGENT,),),
    Software.MCS_IO: (("CVhdFilter", "CVhdMp"),),
}
"""What each consists of; names in one pair of brackets differ by version, one must be there."""
_HELD_BEFORE_BOOT = {"BrokerAgent"}
"""Disabled by `hold_services` until first boot puts it back."""
_POLICY_KEY = "Policies\\Citrix\\VirtualDesktopAgent"


def pvs_target(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """The Provisioning target device software is complete and may start."""
    if job.options.provisioning == "pvs":
        return _judge(evidence, job, Software.PVS_TARGET, is_wanted=True)
    version = evidence.inspection.pvs_target_version
    is_left = f"; {version} is still installed" if version else ""
    return Finding(facts=[f"not needed for this provisioning{is_left}"])


def vda(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """The Virtual Delivery Agent, where there is one, is whole and knows its controllers."""
    finding = _judge(evidence, job, Software.VDA, is_wanted=False)
    wanted = " ".join(job.options.list_of_ddcs)
    for key in vda_keys(evidence.registry):
        found = evidence.registry.text("SOFTWARE", key, "ListOfDDCs")
        if wanted and found != wanted and not _names_controllers(job.options):
            finding.problems.append(f"it registers with '{found}', needed '{wanted}'")
        elif found:
            finding.facts.append(f"registers with {found}")
    cached = list(cached_controllers(evidence.files)) if wanted else []
    where = finding.facts if job.action is Action.VERIFY else finding.problems
    where += [f"{path} puts other controllers in place of these" for path in cached]
    policy = evidence.registry.text("SOFTWARE", _POLICY_KEY, "ListOfDDCs")
    if policy:
        finding.facts.append(f"a policy puts {policy} in place of these controllers")
    return finding


def _names_controllers(options: EngineOptions) -> bool:
    """Say whether the operator has the VDA's own programs set controllers, maybe others."""
    installer = brings(options, Software.VDA)
    arguments = (*options.vda_reconfigure, *(installer.arguments if installer else ()))
    return any("/controllers" in argument.lower() for argument in arguments)


def machine_identity(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """The workstation service depends on the machine identity agent exactly where that can run."""
    finding = _judge(evidence, job, Software.MACHINE_IDENTITY, is_wanted=False)
    for control_set, is_missing in wrong_dependencies(evidence.registry, evidence.files):
        how = "does not wait for" if is_missing else "waits in vain for"
        finding.problems.append(f"{control_set}: LanmanWorkstation {how} {IDENTITY_AGENT}")
    return finding


def mcs_io(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """The write cache driver of Machine Creation Services, where there is one, is whole."""
    return _judge(evidence, job, Software.MCS_IO, is_wanted=False)


def installers(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """Each installer that first boot has to run is there, and in its plan."""
    finding = Finding()
    needed = [i for i in job.options.installers if is_needed(evidence.inspection, i)]
    steps = read_plan(evidence.files).steps if needed else []
    planned = {step.arguments[0] for step in steps if step.verb == INSTALL_PACKAGE}
    for installer in needed:
        name = program_name(installer)
        file = f"{PROGRAMS}/{name}/{installer.path.replace(chr(92), '/').rpartition('/')[2]}"
        missing = [p for p in (f"{PROGRAMS}/{name}.cmd", file) if not evidence.files.exists(p)]
        finding.problems += [f"{name} lacks its file {path}" for path in missing]
        if name not in planned:
            finding.problems.append(f"the plan of first boot does not run {name}")
        finding.facts.append(f"{installer.software} {installer.version} is staged")
    finding.facts = finding.facts or ["none has to run"]
    return finding


def provisioning_state(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """Nothing in the image is about the device that it was streamed to before.

    After the one boot values and personality are told only: software that runs writes its own.
    """
    finding = Finding(facts=["no write cache, no old device"])
    finding.problems += [f"the write cache {n} is there" for n in write_caches(evidence.files)]
    told = [f"{key}: {name}" for key, name in device_values(evidence.registry)]
    told += [PERSONALITY] if evidence.files.exists(PERSONALITY) else []
    has_booted = job.action is Action.VERIFY
    where = finding.facts if has_booted else finding.problems
    where += [f"{item} is about a device" for item in told]
    if job.options.provisioning == "mcs":
        left = left_to_start(evidence.registry, evidence.files)
        finding.problems += [
            f"{control_set}: {service} would start" for control_set, service in left
        ]
    return finding


def domain(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """The machine is in the domain that it was in, or has left it as asked."""
    name = evidence.inspection.domain
    if job.options.leave_domain and name:
        if job.action is Action.VERIFY:
            return Finding(problems=[f"it is still in the domain {name}"])
        return Finding(facts=[f"first boot leaves the domain {name}"])
    return Finding(facts=[f"in the domain {name}" if name else "in no domain"])


def _judge(evidence: Evidence, job: EngineJob, software: Software, *, is_wanted: bool) -> Finding:
    """Judge one piece of software; what first boot is to install is judged after it."""
    installer = brings(job.options, software)
    version = installed_version(evidence.inspection, software)
    has_booted = job.action is Action.VERIFY
    if installer and not has_booted and is_needed(evidence.inspection, installer):
        return Finding(facts=[f"first boot installs {_NAMES[software]} {installer.version}"])
    if not version:
        text = f"the {_NAMES[software]} is not installed"
        return Finding(problems=[text]) if is_wanted or installer else Finding(facts=[text])
    finding = Finding(facts=[f"{_NAMES[software]} {version}"])
    if installer and _is_older(version, installer.version):
        finding.problems.append(f"found version {version}, needed {installer.version}")
    # What streams the disk must be right in whatever control set is chosen; but an installer knows
    # only the one that runs, and of the others' software no start depends.
    is_everywhere = software is Software.PVS_TARGET and not (installer and has_booted)
    current = (evidence.registry.current_control_set,)
    sets = evidence.registry.control_sets if is_everywhere else current
    for control_set in sets:
        for names in _SERVICES[software]:
            problem = _missing(evidence, control_set, names, has_booted=has_booted)
            # What nobody asked for may be switched off on purpose, or be called otherwise.
            if problem is None:
                continue
            is_asked = is_wanted or installer or problem.obstacle is Obstacle.NO_FILE
            where = finding.problems if is_asked else finding.facts
            where.append(f"{control_set}: {problem}")
    _judge_files(evidence, software, installer, finding)
    return finding


def _missing(
    evidence: Evidence, control_set: str, names: tuple[str, ...], *, has_booted: bool
) -> Unstartable | None:
    is_held = not has_booted and _HELD_BEFORE_BOOT.issuperset(names)
    if not is_held:
        return startable(evidence, control_set, names)
    if evidence.registry.service(control_set, names[0]) is None:
        return Unstartable(names[0], Obstacle.MISSING)
    path = evidence.binary_of(control_set, names[0])
    has_file = evidence.files.exists(path)
    return None if has_file else Unstartable(names[0], Obstacle.NO_FILE, path)


def _judge_files(
    evidence: Evidence, software: Software, installer: Installer | None, finding: Finding
) -> None:
    """Read the version of each program and driver; an old one is one that was not replaced."""
    current = evidence.registry.current_control_set
    for names in _SERVICES[software]:
        there = [n for n in names if evidence.registry.service(current, n) is not None]
        path = evidence.binary_of(current, there[0]) if there else ""
        found = file_version(evidence.files, path) if path else None
        if found is None:
            continue
        file = path.rpartition("/")[2]
        finding.facts.append(f"{file} {found.version}")
        wanted = installer.version if installer else ""
        if wanted and _is_older(found.version, wanted):
            finding.problems.append(f"{file} is {found.version}, needed {wanted}")


def _is_older(found: str, wanted: str) -> bool:
    return is_comparable(found, wanted) and not is_at_least(found, wanted)


CHECKS = (
    Check("pvs_target", pvs_target),
    Check("vda", vda),
    Check("machine_identity", machine_identity),
    Check("mcs_io", mcs_io),
    Check("installers", installers, When.BEFORE_BOOT),
    Check("provisioning_state", provisioning_state),
    Check("domain", domain),
)
