"""`tsmerge advise`: whether merging will help, foretold from the data's spectrum and the model, without a search."""
