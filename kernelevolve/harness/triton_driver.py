"""What every Triton candidate on an NVIDIA device needs first, for a fork server to load beforehand."""

import os
import tempfile
from unittest.mock import patch

from triton.backends.nvidia.driver import CudaDriver
from triton.runtime import driver


def warm_up() -> None:
    """Build Triton's end of the driver and load it: most of a second of a C compiler.

    No device is touched: a process that has begun to use one can't be forked.
    """
    with (
        tempfile.TemporaryDirectory(prefix="kernelevolve-driver-") as folder,
        patch.dict(os.environ, TRITON_CACHE_DIR=folder),
    ):
        driver.set_active(CudaDriver())
