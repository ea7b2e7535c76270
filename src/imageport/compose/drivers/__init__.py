"""Driver packages: their INF files, and what of them the guest has."""
