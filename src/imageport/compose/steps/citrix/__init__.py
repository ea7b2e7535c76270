"""Steps about Citrix software."""
