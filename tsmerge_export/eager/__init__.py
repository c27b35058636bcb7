"""Merging in live modules: which layers, how much where nobody says, and the hooks, set and removed."""
