"""What a job folder is called in every cloud, and how the sweep reads it back.

Objects and blobs have no tags that a listing shows: site and run are in their names.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from imageport.cloud import CloudResource
from imageport.clouds.tags import TAG_EXPIRES, TAG_ROLE, TAG_RUN, TAG_SITE
from imageport.errors import ResourceGone

ROOT = "imageport"


def prefix_of(site: str, run: str, token: str) -> str:
    """Return the folder of a job; site and run are in it so that the sweep can tell."""
    return folder_below(f"{ROOT}/{site}/", run, token)


def folder_below(root: str, run: str, token: str) -> str:
    """Return the folder of a job below ``root``, the site's own."""
    return f"{root}{run}/{token[:20]}/"


def job_folders(
    listed: Iterable[tuple[str, datetime]], site: str, expires_seconds: float
) -> list[CloudResource]:
    """Return one resource per job folder of (name, last modified); it expires after its newest."""
    return folders_below(f"{ROOT}/{site}/", listed, site, expires_seconds)


def folders_below(
    root: str, listed: Iterable[tuple[str, datetime]], site: str, expires_seconds: float
) -> list[CloudResource]:
    """Return one resource per folder ``root`` RUN ``/`` TOKEN ``/``; see `job_folders`."""
    newest: dict[str, datetime] = {}
    for name, modified in listed:
        parts = name.removeprefix(root).split("/")
        if name.startswith(root) and len(parts) >= 3:  # RUN/TOKEN/NAME
            folder = root + "/".join(parts[:2]) + "/"
            newest[folder] = max(modified, newest.get(folder, modified))
    lifetime = timedelta(seconds=expires_seconds)
    return [
        CloudResource(
            "object",
            folder,
            {
                TAG_SITE: site,
                TAG_RUN: folder.removeprefix(root).split("/", maxsplit=1)[0],
                TAG_ROLE: "engine-job",
                TAG_EXPIRES: (modified + lifetime).isoformat(timespec="seconds"),
            },
        )
        for folder, modified in sorted(newest.items())
    ]


def require_own_folder(prefix: str, site: str) -> None:
    """Raise `ResourceGone` unless the prefix is a job folder of the site."""
    if not prefix.startswith(f"{ROOT}/{site}/"):
        raise ResourceGone(f"Cannot delete '{prefix}': it is no job folder of this site.")
