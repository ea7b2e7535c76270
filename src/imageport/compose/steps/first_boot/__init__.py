"""Steps that prepare the one boot."""
