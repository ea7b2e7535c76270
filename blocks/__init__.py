"""Where and who: shares, stores, clouds and sites as Prefect blocks."""
