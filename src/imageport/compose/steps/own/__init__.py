"""The operator's own steps."""
