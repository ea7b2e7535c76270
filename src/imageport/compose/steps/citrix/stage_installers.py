"""Software that the operator brings: its installers, put where first boot runs them, silently."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import EngineOptions, Installer, Refusal, Software, Tier
from imageport.compose.first_boot.plan import INSTALL_PACKAGE, PROGRAMS
from imageport.compose.installers import (
    InstallerPackage,
    installed_version,
    installer_problems,
    is_needed,
)
from imageport.compose.refusals import MIN_FREE_BYTES, refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.citrix.programs import add_program
from imageport.compose.volumes.descriptors import Access

_ORDER = (
    Software.OTHER,
    Software.VDA,
    Software.MACHINE_IDENTITY,
    Software.MCS_IO,
    Software.PVS_TARGET,
)
"""What others may need comes first. The target device software comes last: it binds to the network
adapter and to the disk as everything before has left them."""
_SPACE_FACTOR = 3
"""An installer lies there, is unpacked beside, and installs what it holds."""
_VDA_RUNS = 3
"""The VDA's installer asks for a restart in the middle, once for a role of Windows Server and once
for the agent's own drivers; each run goes on where the one before stopped."""
_VDA_GOES_ON, _VDA_RESTARTS = "3", "8"
"""Its exit codes: a restart is needed to go on; installed, a restart completes it."""

_ONCE = r"""@echo off
rem {what}: installed silently, as the operator asked for.
setlocal EnableExtensions DisableDelayedExpansion
{command}
set "CODE=%ERRORLEVEL%"
echo {name} ended with %CODE%
{restarts}exit /b %CODE%
"""
_RESTART = """if "%CODE%"=="{code}" exit /b 3010
"""
_IN_PARTS = r"""@echo off
rem {what}: installed silently, as the operator asked for.
rem It is run {runs} times, for it may need a restart in the middle; once it is done it says so.
setlocal EnableExtensions DisableDelayedExpansion
set "BEGUN=%~dp0{name}.begun"
set "DONE=%~dp0{name}.done"
set "GO_ON=%ProgramData%\Citrix\XenDesktopSetup\XenDesktopVdaSetup.exe"
if exist "%DONE%" exit /b 0
if not exist "%BEGUN%" goto first
if not exist "%GO_ON%" goto first
"%GO_ON%"
goto ended

:first
{command}

:ended
set "CODE=%ERRORLEVEL%"
echo {name} ended with %CODE%
{restarts}if not "%CODE%"=="0" exit /b %CODE%
>"%DONE%" echo done
exit /b 0

:restart
>"%DONE%" echo done
exit /b 3010

:go_on_later
>"%BEGUN%" echo begun
exit /b 3010
"""
_RESTART_DONE = """if "%CODE%"=="{code}" goto restart
"""
_GO_ON_LATER = """if "%CODE%"=="{code}" goto go_on_later
"""


class StageInstallers(Step):
    """Put the installers that the options name where first boot runs them, silently."""

    name: ClassVar[str] = "stage_installers"
    tier: ClassVar[Tier] = Tier.REQUIRED
    needs: ClassVar[tuple[str, ...]] = ("first-boot-folder",)
    options: ClassVar[tuple[str, ...]] = ("installers",)

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether the option names an installer."""
        return bool(options.installers)

    def problems(self, options: EngineOptions) -> list[str]:
        """Check names, versions, digests, arguments, codes and bounds."""
        return installer_problems(options)

    def reason(self, facts: Facts) -> str:
        """Say what is to come, and what is there already."""
        said = []
        for installer in facts.options.installers:
            there = installed_version(facts.inspection, installer.software)
            wanted = f"{installer.software} {installer.version}"
            if not is_needed(facts.inspection, installer):
                said.append(f"{wanted} asked for, {there} is there already")
            elif there:
                said.append(f"{wanted} in place of {there}")
            else:
                said.append(f"{wanted} asked for")
        return "; ".join(said)

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse a guest without room for what it has to install."""
        wanted = [one for one in facts.installers if is_needed(facts.inspection, one.installer)]
        size = sum(package.path.stat().st_size for package in wanted)
        needed = size * _SPACE_FACTOR + MIN_FREE_BYTES
        free = facts.inspection.free_bytes
        if not wanted or free >= needed:
            return []
        reason = f"The Windows volume has {free} bytes free, the installers need {needed}."
        return [refusal("low_free_space", reason)]

    def run(self, context: Context) -> None:
        """Add file, command file and steps of the plan for each that is missing or older."""
        for software in _ORDER:
            for package in context.installers:
                is_its_turn = package.installer.software == software
                if is_its_turn and is_needed(context.inspection, package.installer):
                    _stage(context, package)


def program_name(installer: Installer) -> str:
    """Return the name of its program in the first-boot folder."""
    return f"install-{installer.name}"


def command_text(package: InstallerPackage) -> str:
    """Return its ``.cmd``; of the arguments only percent signs mean anything to cmd.exe."""
    installer = package.installer
    name = program_name(installer)
    codes = list(dict.fromkeys(installer.restart_codes))
    text, restart = _ONCE, _RESTART
    restarts = ""
    if installer.software == Software.VDA:
        text, restart = _IN_PARTS, _RESTART_DONE
        codes += [_VDA_RESTARTS] if _VDA_RESTARTS not in codes else []
        if _VDA_GOES_ON not in codes:
            restarts = _GO_ON_LATER.replace("{code}", _VDA_GOES_ON)
    restarts += "".join(restart.replace("{code}", code) for code in codes)
    facts = {
        "{what}": f"{installer.software} {installer.version}",
        "{name}": name,
        "{runs}": str(_VDA_RUNS),
        "{restarts}": restarts,
        "{command}": _command(package, name),
    }
    for mark, value in facts.items():
        text = text.replace(mark, value)
    return text


def _command(package: InstallerPackage, name: str) -> str:
    file = f'"%~dp0{name}\\{package.path.name}"'
    words = [argument.replace("%", "%%") for argument in package.installer.arguments]
    if package.is_msi:
        log = f'"%~dp0{name}.log"'
        head = f'"%SystemRoot%\\System32\\msiexec.exe" /i {file} /qn /norestart /l*v {log}'
        return " ".join([head, *words])
    return " ".join([file, *words])


def _stage(context: Context, package: InstallerPackage) -> None:
    installer = package.installer
    name = program_name(installer)
    access = Access.ADMINISTRATORS_ONLY
    add_program(context, name, command_text(package))
    context.recorder.add_folder(f"{PROGRAMS}/{name}", access)
    context.recorder.add_file(f"{PROGRAMS}/{name}/{package.path.name}", package.path, access)
    seconds = min(installer.timeout_seconds, context.options.first_boot_deadline_seconds)
    for _ in range(_VDA_RUNS if installer.software == Software.VDA else 1):
        context.plan.add(INSTALL_PACKAGE, name, str(seconds))
