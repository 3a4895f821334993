"""Which parents breed next: the search policies."""
