"""The first-boot programs of the Citrix steps, as they lie there, for tests that run them."""

from __future__ import annotations

from pathlib import Path

from imageport.compose.contract import Installer
from imageport.compose.installers import InstallerPackage
from imageport.compose.steps.citrix import reconfigure_vda, stage_installers, uninstall_pvs_target

MSI_PRODUCT = "{3E7C05B9-D48A-4F12-A6B0-97C1E52F38D6}"


def _installer(software: str, name: str, file: str, *arguments: str) -> bytes:
    option = Installer(software, name, "2407", "0" * 64, file, arguments)
    package = InstallerPackage(option, Path(file), file.endswith(".msi"))
    return _stored(stage_installers.command_text(package))


def _stored(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("ascii")


def sample_programs() -> dict[str, bytes]:
    """Return ``NAME.cmd`` → bytes; each lies in ``programs`` beside a folder of its name.

    - ``install-tool.cmd`` runs ``install-tool/tool.exe``; 3010 and 1641 are a restart.
    - ``install-vda.cmd`` runs ``install-vda/vda.exe``; 3 is a restart after which it goes on.
    - ``install-package.cmd`` runs ``%SystemRoot%/System32/msiexec.exe``.
    - ``uninstall-pvs-target.cmd`` runs that too; 1605 is success.
    - ``reconfigure-vda.cmd`` runs ``XenDesktopVdaSetup.exe`` below ``%ProgramFiles%``.
    """
    uninstall = uninstall_pvs_target.command_text(
        f'"%SystemRoot%\\System32\\msiexec.exe" /x {MSI_PRODUCT} /qn'
    )
    return {
        "install-tool.cmd": _installer("other", "tool", "tool.exe", "/S", '/v"/qn A=5%"'),
        "install-vda.cmd": _installer("vda", "vda", "vda.exe", "/quiet"),
        "install-package.cmd": _installer("other", "package", "package.msi", "ADDLOCAL=All"),
        "uninstall-pvs-target.cmd": _stored(uninstall),
        "reconfigure-vda.cmd": _stored(
            reconfigure_vda.command_text(("/controllers", '"a.example b.example"'))
        ),
    }
