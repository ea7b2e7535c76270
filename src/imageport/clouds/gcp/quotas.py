# References: Compute Engine, "Allocation quotas"; REST v1: regions.get, projects.get ("quotas").
"""How much of what Google allots to a project and a region is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.cloud import compute_v1

from imageport.cloud import PlaceProblem
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.machine_series import cpu_quotas, disk_quota
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.stopped_machine import BLANK_GIB
from imageport.clouds.waiting import retried
from imageport.model import GIB

ENGINE_DISK_GIB: Final = 10
"""The system disk of an engine machine, beside the working disk: Debian's image."""
IMAGES_OF_A_RUN: Final = 2
"""Generations U and P."""
RULES_OF_A_RUN: Final = 6
"""At most: three for engine machines, and with named destinations four for the one boot; those
follow each other, so the larger number and what a killed run may have left."""
RAISE_HINT: Final = "Raise the quota of the project (IAM & Admin, Quotas), or name a smaller type."


@dataclass(frozen=True, slots=True)
class Quota:
    """How much is in use and how much may be."""

    used: float
    limit: float

    @property
    def left(self) -> float:
        """Return how much more there may be."""
        return max(0.0, self.limit - self.used)


def check_quotas(
    account: GcpAccount, size_bytes: int, machines: Mapping[str, tuple[str, int]]
) -> Iterator[PlaceProblem]:
    """Yield where a quota is too small for what a run makes.

    The machines of a run follow each other, so each has to fit for itself.

    Args:
        account: Of the run.
        size_bytes: Of the image.
        machines: By setting: machine type and how many vCPUs it has.
    """
    settings = account.settings
    region = _region_quotas(account)
    found = [
        *_cpu_shortages(region, machines),
        *_short(region, "INSTANCES", 1, "one machine at a time"),
    ]
    gib, what = _disks(settings, size_bytes)
    found += _short(region, disk_quota(settings.disk_type), gib, what)
    project = _project_quotas(account)
    found += _short(project, "IMAGES", IMAGES_OF_A_RUN, "what is uploaded and what is prepared")
    if not (settings.engine_network_tags and settings.isolated_network_tag):
        found += _short(project, "FIREWALLS", RULES_OF_A_RUN, "the rules of a run's machines")
    most = max((vcpus for _, vcpus in machines.values()), default=0)
    found += _short(project, "CPUS_ALL_REGIONS", most, "the largest machine")
    yield from found


def _disks(settings: GcpSettings, size_bytes: int) -> tuple[int, str]:
    """Return how many GiB a run's disks have at most at a time, and whose they are."""
    gib = -(-size_bytes // GIB)
    if settings.keep_stopped_vm:
        # The working disk is deleted last.
        total, whose = 2 * gib + BLANK_GIB, "the working disk and the stopped machine's"
    else:
        total, whose = gib + ENGINE_DISK_GIB, "the working disk and the engine's"
    return total, f"{whose} ({total} GiB)"


def _cpu_shortages(
    quotas: Mapping[str, Quota], machines: Mapping[str, tuple[str, int]]
) -> list[PlaceProblem]:
    found: list[PlaceProblem] = []
    seen: set[str] = set()
    for setting, (machine_type, vcpus) in machines.items():
        name = next((name for name in cpu_quotas(machine_type) if name in quotas), "")
        short = _short(quotas, name, vcpus, f"the vCPUs of {setting} '{machine_type}'")
        if short and name not in seen:
            seen.add(name)
            found += short
    return found


def _short(quotas: Mapping[str, Quota], name: str, needed: int, what: str) -> list[PlaceProblem]:
    quota = quotas.get(name)
    if quota is None or quota.left >= needed:
        return []
    found = f"{quota.limit:.0f}, of which {quota.used:.0f} are in use"
    return [PlaceProblem(f"quota {name}", found, f"{needed} more for {what}", RAISE_HINT)]


def _region_quotas(account: GcpAccount) -> dict[str, Quota]:
    settings = account.settings
    regions = account.clients.compute(compute_v1.RegionsClient)

    def ask() -> dict[str, Quota]:
        with asked("compute.regions.get", settings.region):
            found = regions.get(project=settings.project, region=settings.region)
            return _by_name(found.quotas)

    return retried(ask)


def _project_quotas(account: GcpAccount) -> dict[str, Quota]:
    project = account.settings.project
    projects = account.clients.compute(compute_v1.ProjectsClient)

    def ask() -> dict[str, Quota]:
        with asked("compute.projects.get", project):
            return _by_name(projects.get(project=project).quotas)

    return retried(ask)


def _by_name(quotas: Iterable[Any]) -> dict[str, Quota]:
    return {str(item.metric): Quota(item.usage, item.limit) for item in quotas}
