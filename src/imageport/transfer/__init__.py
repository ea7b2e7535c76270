"""The one engine that moves blocks: plan, pipeline, journal, pacing, manifest, verify."""
