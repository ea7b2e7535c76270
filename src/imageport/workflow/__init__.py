"""One module per stage, plain Python: what a Prefect task, a script or a test calls."""
