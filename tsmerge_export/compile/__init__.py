"""From a model to a merged file."""
