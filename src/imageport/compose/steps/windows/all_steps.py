"""The steps of this group, in the order they run."""

from __future__ import annotations

from imageport.compose.step import Step
from imageport.compose.steps.windows.keep_connections_alive import KeepConnectionsAlive
from imageport.compose.steps.windows.keep_time import ReadClockAsUtc, UseCloudTimeServer
from imageport.compose.steps.windows.name_metadata_server import NameMetadataServer
from imageport.compose.steps.windows.query_disk_alignment import QueryDiskAlignment
from imageport.compose.steps.windows.remove_winhttp_proxy import RemoveWinhttpProxy
from imageport.compose.steps.windows.stage_vm_agent import StageVmAgent
from imageport.compose.steps.windows.switch_off_hibernation import SwitchOffHibernation
from imageport.compose.steps.windows.use_dhcp import UseDhcp
from imageport.compose.steps.windows.use_high_performance import UseHighPerformance
from imageport.compose.steps.windows.write_crash_dumps import WriteCrashDumps

STEPS: tuple[Step, ...] = (
    ReadClockAsUtc(),
    UseCloudTimeServer(),
    UseDhcp(),
    NameMetadataServer(),
    KeepConnectionsAlive(),
    QueryDiskAlignment(),
    RemoveWinhttpProxy(),
    SwitchOffHibernation(),
    UseHighPerformance(),
    WriteCrashDumps(),
    StageVmAgent(),
)
