"""Files of one shape: batch and length fixed, every length a constant, nothing computed from shapes when they run."""
