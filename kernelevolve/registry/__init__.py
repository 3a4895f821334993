"""Certified kernels: where they are kept, and which one fits a machine and a shape."""
