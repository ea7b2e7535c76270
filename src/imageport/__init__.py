"""Moves golden Windows images between sites and clouds; see ARCHITECTURE.md for the map."""

__version__ = "0.1.0"
