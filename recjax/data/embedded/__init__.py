"""Generated datasets, which need no file."""
