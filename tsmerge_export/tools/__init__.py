"""Commands around an export: what to expect, what is fastest, how fast it is."""
