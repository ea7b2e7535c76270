"""The readiness verdict, item by item."""
