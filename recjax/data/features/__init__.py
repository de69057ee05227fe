"""Features of items by name: columns and relations made of a catalog and its training events."""
