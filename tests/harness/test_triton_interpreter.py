"""What Triton's interpreter can do once it is mended: each a kernel that is compiled and compared."""

from pathlib import Path

import pytest
import triton_kernels as kernels
from test_triage import DOUBLING, examined, on_gpu

from kernelevolve.schema import ExactRule, Input, Output, Target, Workload
from kernelevolve.testing.records import a_target


def product_target(dtype: str, result: str) -> Target:
    return a_target(
        axes={"M": "rows", "K": "summed"}, dtypes={"T": (dtype,), "R": (result,)},
        inputs=(Input(name="a", shape=("M", "K"), dtype="T"), Input(name="b", shape=("M", "K"), dtype="T")),
        outputs=(Output(name="c", shape=("M", "M"), dtype="R"),),
        workloads=tuple(
            Workload(name=name, role=role, device="gpu", axes={"M": 32, "K": k}, dtypes={"T": dtype, "R": result})
            for name, role, k in (("big", "search", 4096), ("small", "check", 64))
        ),
        files={"reference.py": "def reference(a, b):\n    import torch\n"
               "    wide = torch.float64 if a.dtype == torch.float64 else torch.float32\n"
               "    return a.to(wide) @ b.to(wide).T\n", "baselines.py": ""},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2", "float8_e4m3fn"])
def test_a_product_of_narrow_numbers_is_right(dtype: str, cache_dir: Path) -> None:
    found = examined(kernels.SCALED, cache_dir, product_target(dtype, "float32"))
    assert found.passed, found.diagnostics
    assert found.checked == ("small",)
    assert all(k.resources.instructions.tensor_core for k in found.kernels)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["nvidia-h200", "amd-mi355x"])
def test_tensor_descriptors_are_compiled_and_compared(device: str, cache_dir: Path) -> None:
    target = a_target(
        axes={"R": "rows", "C": "columns"},
        inputs=(Input(name="x", shape=("R", "C"), dtype="T"),),
        outputs=(Output(name="y", shape=("R", "C"), dtype="T"),),
        workloads=(on_gpu("big", "search", R=4096, C=64), on_gpu("small", "check", R=50, C=64)),
        files=DOUBLING.files,
    )  # fmt: skip
    found = examined(kernels.DESCRIPTOR, cache_dir, target, device)
    assert found.passed, found.diagnostics
    assert found.checked == ("small",)


@pytest.mark.slow
def test_atomics_count(cache_dir: Path) -> None:
    target = a_target(
        axes={"N": "elements", "C": "counters"}, dtypes={"T": ("int32",)},
        inputs=(Input(name="x", shape=("N",), dtype="T"),),
        outputs=(Output(name="y", shape=("C",), dtype="T", rule=ExactRule()),),
        workloads=tuple(
            Workload(name=name, role=role, device="gpu", axes={"N": n, "C": 17}, dtypes={"T": "int32"})
            for name, role, n in (("big", "search", 1 << 20), ("small", "check", 1000))
        ),
        files={
            "reference.py": "import torch\n\n\ndef reference(x):\n"
            "    return torch.cat([torch.bincount(x, minlength=16), x.max()[None]]).int()\n",
            "inputs.py": "import torch\n\n\ndef make(case, axes, dtypes, generator):\n"
            "    return {'x': torch.randint(16, (axes['N'],), generator=generator, dtype=torch.int32)}\n",
            "baselines.py": "",
        },
    )  # fmt: skip
    found = examined(kernels.COUNTS, cache_dir, target)
    assert found.passed, found.diagnostics
    assert found.checked == ("small",)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e5m2", "float8_e4m3fn"])
def test_every_value_of_a_narrow_type_is_read_as_torch_reads_it(dtype: str, cache_dir: Path) -> None:
    """Infinities, NaN and subnormals included; in all sizes of bfloat16."""
    count = 65536 if dtype == "bfloat16" else 256
    target = a_target(
        dtypes={"T": (dtype,), "R": ("float32",)},
        outputs=(Output(name="y", shape=("N",), dtype="R", rule=ExactRule()),),
        workloads=tuple(
            Workload(name=name, role=role, device="gpu", axes={"N": n}, dtypes={"T": dtype, "R": "float32"})
            for name, role, n in (("big", "search", 1 << 20), ("small", "check", count))
        ),
        files={
            "reference.py": "def reference(x):\n    return x.float()\n", "baselines.py": "",
            "inputs.py": "import torch\n\n\ndef make(case, axes, dtypes, generator):\n"
            "    dtype = getattr(torch, dtypes['T'])\n"
            "    integer = torch.int16 if dtype.itemsize == 2 else torch.int8\n"
            "    return {'x': torch.arange(axes['N']).to(integer).view(dtype)}\n",
        },
    )  # fmt: skip
    source = kernels.DOUBLE.replace("mask=o < n) * 2,", "mask=o < n).to(tl.float32),")
    found = examined(source, cache_dir, target)
    assert found.passed, found.diagnostics
    assert found.checked == ("small",)
