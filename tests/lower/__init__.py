"""Tests of the lowerings."""
