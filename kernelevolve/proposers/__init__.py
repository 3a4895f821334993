"""Whoever writes candidates: the proposers."""
