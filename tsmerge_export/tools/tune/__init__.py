"""`tsmerge tune`: the fastest merge setting whose error stays within a budget, found by search on the user's data."""
