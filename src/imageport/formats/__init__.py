"""Disk formats: readers that validate everything, writers, and a read-only NBD view."""
