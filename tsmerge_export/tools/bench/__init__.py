"""`tsmerge bench`: a model's merged and unmerged forms and their rivals, timed in turn, each in its own process."""
