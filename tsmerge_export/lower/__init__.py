"""Lowering: abstract ``tsmerge`` operators to what a runtime executes."""
