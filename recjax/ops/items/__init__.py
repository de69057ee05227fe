"""Losses, ranking and lookup over a table of items that is never scored as a whole."""
