"""Language models: one call, many services."""
