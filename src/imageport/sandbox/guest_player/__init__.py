"""Plays what Windows would do at the one boot; an opinion of its own, imports nothing of ours."""
