"""The steps of this group, in the order they run."""

from __future__ import annotations

from imageport.compose.step import Step
from imageport.compose.steps.boot.bring_disks_online import BringDisksOnline
from imageport.compose.steps.boot.convert_to_uefi import ConvertToUefi
from imageport.compose.steps.boot.enable_boot_drivers import EnableBootDrivers
from imageport.compose.steps.boot.enable_dvd_drive import EnableDvdDrive
from imageport.compose.steps.boot.ignore_boot_failures import IgnoreBootFailures
from imageport.compose.steps.boot.place_fallback_loader import PlaceFallbackLoader
from imageport.compose.steps.boot.quiet_serial_port import QuietSerialPort, SerialConsole
from imageport.compose.steps.boot.replay_hive_logs import ReplayHiveLogs

STEPS: tuple[Step, ...] = (
    ReplayHiveLogs(),
    ConvertToUefi(),  # before all that changes the boot store
    PlaceFallbackLoader(),
    QuietSerialPort(),
    SerialConsole(),
    IgnoreBootFailures(),
    EnableBootDrivers(),
    BringDisksOnline(),
    EnableDvdDrive(),
)
