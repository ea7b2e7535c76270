"""What an operator's own steps may hold: registry texts, lists of files, first-boot scripts."""
