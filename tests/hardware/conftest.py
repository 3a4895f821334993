"""What the tests of hardware share."""

import pytest

from kernelevolve.hardware import devices


@pytest.fixture(autouse=True)
def said_afresh():
    """Warnings that are given once a process are given in every test."""
    devices._say.cache_clear()
