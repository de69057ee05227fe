"""Prepared datasets on disk and in buckets."""
