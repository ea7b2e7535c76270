"""What an operator starts: one file is one deployment."""
