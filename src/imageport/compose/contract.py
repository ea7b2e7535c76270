"""The job that the compositing engine takes and the report that it gives back, as JSON.

The engine runs as its own process, at the site or in a worker machine, from one zipapp:
``python3 engine.pyz JOB.json REPORT.json``. Standard library only: this module travels in it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from imageport.compose.json_objects import read_object

SCHEMA = 1


class Action(StrEnum):
    """What the engine is asked to do."""

    INSPECT = "inspect"
    """Read-only: what is there, and every reason to refuse."""
    PLAN = "plan"
    """Read-only: the changes that ``compose`` would make."""
    COMPOSE = "compose"
    """Write the changes to the disk."""
    VERIFY = "verify"
    """The readiness verdict, after the one boot with what first boot left behind. Read-only, except
    that ``leave_no_trace`` takes our own folder away once the verdict has passed."""


class Tier(StrEnum):
    """Why a change is made."""

    REQUIRED = "required"
    RECOMMENDED = "recommended"


@dataclass(frozen=True, slots=True)
class EngineDisk:
    """Where the engine finds the disk: a device, a raw file, or ``nbd+unix:///?socket=…``."""

    path: str
    disk_guid: str = ""
    """GPT disk GUID, or ``mbr:`` and the eight digits of an MBR signature, that must be found, else
    the disk is refused; "" only for ``inspect`` and ``plan``."""


class Software(StrEnum):
    """What an operator's installer brings; the verdict knows what each must leave behind."""

    PVS_TARGET = "pvs_target"
    VDA = "vda"
    MACHINE_IDENTITY = "machine_identity"
    """Citrix' machine identity service agent (MISA), service PvsVmAgent."""
    MCS_IO = "mcs_io"
    """The write-back cache driver of Machine Creation Services (MCSIO)."""
    OTHER = "other"


class OwnPoint(StrEnum):
    """When an operator's own step runs."""

    OFFLINE_BEFORE = "offline_before"
    OFFLINE_AFTER = "offline_after"
    FIRST_BOOT = "first_boot"


@dataclass(frozen=True, slots=True)
class Installer:
    """Software that first boot installs from the payload, silently.

    ``path`` is the program or MSI, relative to the payload; ``arguments`` are what it gets beside
    ``msiexec /i``. ``version`` is what must be installed afterwards, as a prefix of whole numbers.
    """

    software: str
    name: str
    version: str
    sha256: str
    path: str
    arguments: tuple[str, ...] = ()
    restart_codes: tuple[str, ...] = ("3010", "1641")
    """Exit codes that mean: installed, a restart completes it. Decimal."""
    timeout_seconds: int = 1800


@dataclass(frozen=True, slots=True)
class OwnStep:
    """One step of the operator's own, from the payload.

    Offline: a ``.reg`` file (HKEY_LOCAL_MACHINE only; CurrentControlSet means every control set) or
    a ``.json`` list of files to add and remove. First boot: a ``.cmd`` or ``.ps1``.
    """

    point: str
    path: str
    required: bool = False
    timeout_seconds: int = 600


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the operator chose; every field has a safe default.

    ``recommended`` names steps of that tier to run. ``drivers`` are folders inside the payload
    that hold INF packages. ``list_of_ddcs`` are Delivery Controllers, empty leaves them alone.
    """

    cloud: str = "aws"
    provisioning: str = "pvs"
    list_of_ddcs: tuple[str, ...] = ()
    recommended: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    required_nic_ids: tuple[str, ...] = ()
    """Hardware ids of which one must have a driver; empty takes the cloud's own default."""
    first_boot_deadline_seconds: int = 1200
    first_boot_attempts: int = 3
    azure_vm_agent: str = ""
    """The Azure VM agent's MSI, relative to the payload, to install at first boot; "" = none."""
    installers: tuple[Installer, ...] = ()
    own_steps: tuple[OwnStep, ...] = ()
    vda_reconfigure: tuple[str, ...] = ()
    """Arguments for ``XenDesktopVdaSetup /reconfigure`` at first boot; empty = not run."""
    rearm: str = "auto"
    """``auto`` (for PVS), ``on`` or ``off``: new licence grace for Windows and volume Office at
    first boot; never the last one that is left."""
    leave_domain: bool = False
    """Leave the domain at first boot, locally; the account in the directory stays."""
    serial_console: str = "keep"
    """Emergency management services at the end: ``keep`` (as the image has it), ``on``, ``off``.
    While preparing they are off, for they take the serial port."""
    convert_to_uefi: bool = False
    """Turn an MBR disk that boots by BIOS into GPT and UEFI."""
    leave_no_trace: bool = False
    """Take the first-boot folder away after the verdict."""


@dataclass(frozen=True, slots=True)
class EngineJob:
    """One job."""

    action: Action
    disk: EngineDisk
    options: EngineOptions = EngineOptions()
    run: str = ""
    payload_sha256: str = ""
    """Of the zip unpacked in the folder given by ``--payload``; "" = there is none."""

    @property
    def may_write(self) -> bool:
        """Say whether the disk has to be writable: only then is it opened so."""
        is_last = self.action is Action.VERIFY and self.options.leave_no_trace
        return self.action is Action.COMPOSE or is_last

    def to_json(self) -> str:
        """Return the job as JSON text."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason not to touch this guest."""

    code: str
    """``hibernated``, ``dirty_ntfs``, ``bitlocker`` …; `refusals` has them all."""
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change, with the value before; sensitive values appear as ``sha256:…`` only."""

    step: str
    tier: str
    kind: str
    """``registry``, ``file``, ``folder``, ``descriptor``, ``disk``."""
    path: str
    name: str = ""
    before: str = ""
    """"" = was not there."""
    after: str = ""
    """"" = removed."""


@dataclass(frozen=True, slots=True)
class StepNote:
    """One step of the plan: why it runs, or why not."""

    name: str
    tier: str
    summary: str
    chosen: bool
    reason: str
    made: int = 0
    """How many changes it made, or would make."""


@dataclass(frozen=True, slots=True)
class VerdictItem:
    """One item of the readiness verdict."""

    name: str
    passed: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the guest is."""

    product_name: str = ""
    build: str = ""
    architecture: str = ""
    edition: str = ""
    firmware: str = ""
    """``uefi`` or ``bios``."""
    disk_guid: str = ""
    """As in `EngineDisk`."""
    partitions: tuple[str, ...] = ()
    control_sets: tuple[str, ...] = ()
    current_control_set: str = ""
    source_platform: str = ""
    """``vmware``, ``xenserver``, ``nutanix``, ``parallels``, ``kvm``, ``hyperv`` or ``none``."""
    source_tools: tuple[str, ...] = ()
    """Platforms of whose guest tools something is installed, whatever the machine is."""
    vda_version: str = ""
    pvs_target_version: str = ""
    machine_identity_version: str = ""
    """Of Citrix' machine identity agent (PvsVmAgent)."""
    mcs_io_version: str = ""
    provisioned_by: str = ""
    """``pvs``, ``mcs`` or "": what streams or made this image until now."""
    domain: str = ""
    free_bytes: int = 0
    software: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    """Driver packages of others than Microsoft: ``oem3.inf Maker 1.2.3.4 class``."""
    network: tuple[str, ...] = ()
    """What the old network was: addresses, gateways, name servers, routes; no secrets."""
    policies: tuple[str, ...] = ()
    """Policies that could keep the first boot from its work or win over a step, with their keys."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What the engine answers; ``ok`` means it did what was asked (a failed verdict is not ok)."""

    action: Action
    ok: bool
    engine_id: str = ""
    """sha256 over the engine's sources: the same id, job and payload give the same changes."""
    error: str = ""
    inspection: Inspection = Inspection()
    refusals: tuple[Refusal, ...] = ()
    steps: tuple[StepNote, ...] = ()
    changes: tuple[Change, ...] = ()
    verdict: tuple[VerdictItem, ...] = ()
    first_boot: dict[str, str] = field(default_factory=dict)
    """``verify`` only: what first boot reported (state, attempts, log tail)."""
    seconds: float = 0.0

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a report; `InputError`, a `ValueError`, names every key that is wrong."""
        report: Self = _read(cls, _document(text, "report"), "report")
        return report


def job_from_json(text: str | bytes) -> EngineJob:
    """Read a job; `InputError`, a `ValueError`, names every key that is unknown or wrong."""
    job: EngineJob = _read(EngineJob, _document(text, "job"), "job")
    return job


def _document(text: str | bytes, what: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
        raise ValueError(f"Bad engine {what}: found no schema {SCHEMA}, needed one.")
    return value


_NESTED: dict[str, Any] = {
    "disk": EngineDisk,
    "options": EngineOptions,
    "inspection": Inspection,
    "refusals": Refusal,
    "changes": Change,
    "verdict": VerdictItem,
    "steps": StepNote,
    "installers": Installer,
    "own_steps": OwnStep,
    "action": Action,
}


def options_from_json(value: dict[str, Any]) -> EngineOptions:
    """Read the options alone, as an operator writes them; errors as those of a job."""
    options: EngineOptions = _read(EngineOptions, value, "options")
    return options


def _read(kind: Any, value: Any, where: str) -> Any:
    return read_object(kind, value, where, _NESTED)
