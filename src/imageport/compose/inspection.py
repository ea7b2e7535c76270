"""What the guest is, from its registry and files, without changing anything."""

from __future__ import annotations

from imageport.compose.contract import Inspection
from imageport.compose.guest_facts.bounded_facts import bounded
from imageport.compose.guest_facts.citrix_software import citrix_facts
from imageport.compose.guest_facts.domain import joined_domain
from imageport.compose.guest_facts.drivers import foreign_drivers
from imageport.compose.guest_facts.network import network_facts
from imageport.compose.guest_facts.platform import source_platform, source_tools
from imageport.compose.guest_facts.policies import blocking_policies
from imageport.compose.guest_facts.software import installed_products
from imageport.compose.guest_facts.windows_release import (
    WINDOWS_NT,
    architecture,
    build_number,
    product_name,
)
from imageport.compose.hives.registry import Registry
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.partition_table import PartitionTable


def inspect(registry: Registry, files: GuestFiles, table: PartitionTable) -> Inspection:
    """Return the facts, bounded; what a guest does not tell stays empty."""
    current = registry.current_control_set
    products = installed_products(registry)
    tools = source_tools(registry, current, products)
    citrix = citrix_facts(registry, files, current, products)
    facts = Inspection(
        product_name=product_name(registry),
        build=build_number(registry),
        architecture=architecture(registry, files, current),
        edition=registry.text("SOFTWARE", WINDOWS_NT, "EditionID"),
        firmware=table.firmware,
        disk_guid=table.disk_guid,
        partitions=describe_partitions(table),
        control_sets=registry.control_sets,
        current_control_set=current,
        source_platform=source_platform(registry, tools),
        source_tools=tools,
        vda_version=citrix.vda_version,
        pvs_target_version=citrix.pvs_target_version,
        machine_identity_version=citrix.machine_identity_version,
        mcs_io_version=citrix.mcs_io_version,
        provisioned_by=citrix.provisioned_by,
        domain=joined_domain(registry, files, current),
        free_bytes=files.free_bytes(),
        software=tuple(f"{name} {version}".rstrip() for name, version in products),
        drivers=foreign_drivers(registry, current),
        network=network_facts(registry, files, current),
        policies=blocking_policies(registry, files, current),
    )
    return bounded(facts)


def describe_partitions(table: PartitionTable) -> tuple[str, ...]:
    """Return one line per partition."""
    return tuple(
        f"{p.number}: {p.name or p.type_id}, {p.length_bytes} bytes at {p.first_byte}"
        for p in table.partitions
    )
