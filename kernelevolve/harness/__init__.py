"""What runs beside the candidate: the judge, the sandbox, correctness, timing. No keys, no store, no network."""
