"""`tsmerge distill`: training the weights of a model for the merging that it is exported with."""
