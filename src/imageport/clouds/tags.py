"""The tags on everything this product makes in a cloud; a sweep believes nothing else."""

from __future__ import annotations

TAG_SITE = "imageport:site"
TAG_RUN = "imageport:run"
TAG_ROLE = "imageport:role"
TAG_EXPIRES = "imageport:expires"
TAG_TOKEN = "imageport:token"  # noqa: S105 - a name, no secret
TAG_NAME = "Name"
"""What a resource is, for people: AWS shows it as its name."""

ROLE_UPLOADED = "uploaded"
ROLE_PREPARED = "prepared"

LASTING_ROLES = frozenset({ROLE_UPLOADED, ROLE_PREPARED})
"""What a run makes to outlive it, once it is in the catalogue."""
