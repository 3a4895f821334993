"""Shipped for tests, ours and yours: fakes that say so, and a contract suite for every seam."""
