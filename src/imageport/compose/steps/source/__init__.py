"""Steps that take the source platform away."""
