"""Steps that bring the target's drivers."""
