"""`tsmerge lowpass`: what merging does to a signal's spectrum, beside a Gaussian filter of as many tokens."""
