"""A plugin of pytest that prints a failure as it comes: what is printed at the end is lost where time runs out."""

import sys

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """To standard error, which a part's log keeps."""
    if report.failed:
        print(f"\n{report.nodeid} ({report.when}):\n{report.longreprtext}", file=sys.stderr, flush=True)
