"""The languages of a GPU: their kernels compute, on whatever GPU is here."""

import pytest

from kernelevolve import hardware
from kernelevolve.languages.cuda import Cuda
from kernelevolve.languages.triton import Triton
from kernelevolve.schema import Hardware
from kernelevolve.testing import sources
from kernelevolve.testing.language_contract import ComputingContract
from kernelevolve.testing.records import a_candidate


def the_gpu() -> Hardware:
    return next(machine for machine in hardware.detect_all() if machine.device == "gpu")


@pytest.mark.gpu
class TestTriton(ComputingContract):
    language = Triton()
    good = a_candidate(language="triton", files={"main.py": sources.TRITON}, tunables={})
    device = "cuda"

    def present(self) -> Hardware:
        return the_gpu()


@pytest.mark.gpu
class TestCuda(ComputingContract):
    language = Cuda()
    good = a_candidate(language="cuda", files={"main.cu": sources.CUDA}, tunables={})
    device = "cuda"

    def present(self) -> Hardware:
        return the_gpu()
