"""Tags and limits that flows, deployments and automations agree on."""

from __future__ import annotations

TAG = "imageport"
"""On every deployment of this project: what the automations look at."""

AUTO_RESUME = "auto-resume"
"""On deployments whose crashed runs are started again; they are fenced by a lease per image."""

MOST_ATTEMPTS = 4
"""A run that crashes every time must end: at this many starts it is given up and cleaned up."""

PARTIALLY_PUBLISHED = "PartiallyPublished"
"""Name of the failed state of a run in which some targets failed and others have the image. Events
bear a state's name, not its type: the automations look for it."""
