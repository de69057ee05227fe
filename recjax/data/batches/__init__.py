"""Samples, views, packing, loader, mixture: datasets to device batches."""
