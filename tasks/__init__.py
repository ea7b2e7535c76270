"""What Prefect retries and caches; each task calls the library once."""
