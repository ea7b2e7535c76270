"""What may be deleted: only what the tags say is of this very site."""

from __future__ import annotations

from imageport.cloud import CloudResource
from imageport.clouds.tags import TAG_SITE
from imageport.errors import CloudRefused


def require_own(resource: CloudResource, site: str) -> None:
    """Raise `CloudRefused` unless the resource is tagged as this site's; "" owns nothing."""
    if not site or resource.tags.get(TAG_SITE) != site:
        raise CloudRefused(
            f"Cannot delete '{resource.id}': it belongs to site "
            f"'{resource.tags.get(TAG_SITE, '')}', not to '{site}'."
        )
