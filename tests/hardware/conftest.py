"""What the tests of hardware share."""

import pytest

from kernelevolve.hardware import devices, gpu_state


@pytest.fixture(autouse=True)
def afresh():
    """What is said, or asked, once a process is said and asked in every test."""
    devices._say.cache_clear()
    gpu_state._meant.cache_clear()
