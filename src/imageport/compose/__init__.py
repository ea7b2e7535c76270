"""The compositing engine: standard library and the distribution's guestfs only."""
