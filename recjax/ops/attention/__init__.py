"""Attention over packed rows, as functions of arrays, with their sharded forms."""
