"""The steps of this group, in the order they run."""

from __future__ import annotations

from imageport.compose.step import Step
from imageport.compose.steps.citrix.clear_pvs_state import ClearPvsState
from imageport.compose.steps.citrix.forget_sccm_identity import ForgetSccmIdentity
from imageport.compose.steps.citrix.keep_machine_identity_dependency import (
    KeepMachineIdentityDependency,
)
from imageport.compose.steps.citrix.leave_domain import LeaveDomain
from imageport.compose.steps.citrix.point_vda_at_controllers import PointVdaAtControllers
from imageport.compose.steps.citrix.rearm_licences import RearmLicences
from imageport.compose.steps.citrix.reconfigure_vda import ReconfigureVda
from imageport.compose.steps.citrix.stage_installers import StageInstallers
from imageport.compose.steps.citrix.uninstall_pvs_target import UninstallPvsTarget

STEPS: tuple[Step, ...] = (
    ClearPvsState(),
    KeepMachineIdentityDependency(),
    ForgetSccmIdentity(),
    PointVdaAtControllers(),
    StageInstallers(),
    UninstallPvsTarget(),
    ReconfigureVda(),
    LeaveDomain(),
    RearmLicences(),
)
