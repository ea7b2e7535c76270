"""Steps that fit Windows to a cloud."""
