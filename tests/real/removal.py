"""The end of every probe: all that carries its site's tag is deleted, whatever it left itself."""

from __future__ import annotations

from imageport.cloud import Cloud, CloudResource

ROUNDS = 3
"""What is deleted first may be what the next one was still in use by."""


def remove_all(cloud: Cloud, site: str) -> None:
    """Delete everything of the site; one that cannot be deleted keeps no other from going.

    Raises:
        ExceptionGroup: why the last round failed, with what is left and still costs money.
    """
    failures: list[Exception] = []
    for _ in range(ROUNDS):
        failures = [found for each in cloud.list_ours(site) if (found := _failure(cloud, each))]
        if not failures:
            return
    raise ExceptionGroup(f"Cannot delete everything of site '{site}'", failures)


def _failure(cloud: Cloud, resource: CloudResource) -> Exception | None:
    try:
        cloud.delete_resource(resource)
    except Exception as error:
        error.add_note(f"{resource.kind} {resource.id} is left")
        return error
    return None
