"""Roles, quotas and machine types: what a real project says of itself. Less than 0.01 USD."""

from __future__ import annotations

from google.cloud import compute_v1

from imageport.clouds.gcp.machine_series import cpu_quotas, disk_quota
from imageport.clouds.sweep import sweep
from imageport.model import GIB
from tests.clouds.cloud_contract import BLOCKS, in_days, uploaded
from tests.real.conftest import Observed
from tests.real.probes import probes
from tests.real.real_gcp import RealGcp


@probes("gcp-roles")
def test_the_roles_are_enough_from_the_self_test_to_the_sweep(gcp: RealGcp, observed: Observed):
    cloud = gcp.cloud()
    gaps = cloud.check_permissions()
    problems = [str(problem) for problem in cloud.check_place("probe", GIB)]
    observed(f"gaps: {[(gap.action, gap.found) for gap in gaps]}; place: {problems}")
    assert gaps == []
    reference = uploaded(cloud, BLOCKS)
    with cloud.open_snapshot(reference) as disk:
        assert disk.read_at(0, len(BLOCKS[0])) == BLOCKS[0]
    swept = sweep(cloud, gcp.state, gcp.site, in_days(2))
    assert [item.id for item in swept] == [reference]
    assert cloud.list_ours(gcp.site) == []


@probes("gcp-machine-series")
def test_quotas_and_architectures_are_told_as_preflight_reads_them(
    gcp: RealGcp, observed: Observed
):
    settings = gcp.settings()
    region = gcp.clients.regions.get(project=settings.project, region=settings.region)
    projects = gcp.clients.compute(compute_v1.ProjectsClient)
    of_region = {quota.metric for quota in region.quotas}
    of_project = {quota.metric for quota in projects.get(project=settings.project).quotas}
    types = gcp.clients.compute(compute_v1.MachineTypesClient)
    told = {}
    for name in (settings.engine_machine_type, settings.boot_machine_type, "c4a-standard-2"):
        try:
            found = types.get(project=settings.project, zone=settings.zone, machine_type=name)
            told[name] = found.architecture
        except Exception as error:
            told[name] = type(error).__name__  # the zone does not have it
    observed(f"{told}; region: {sorted(of_region)}; project: {sorted(of_project)}")
    for name in (settings.engine_machine_type, settings.boot_machine_type):
        assert told[name] == "X86_64"
        assert set(cpu_quotas(name)) & of_region
    assert {disk_quota(settings.disk_type), "INSTANCES"} <= of_region
    assert {"IMAGES", "FIREWALLS"} <= of_project
