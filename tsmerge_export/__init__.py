"""tsmerge-export: the compiler for token merging in time-series models."""
