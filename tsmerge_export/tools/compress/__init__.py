"""`tsmerge compress`: weights pruned, clustered and quantised, each step as far as an error budget allows."""
