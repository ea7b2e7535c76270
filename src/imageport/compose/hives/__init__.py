"""Registry hives: reading, checking and changing them."""
