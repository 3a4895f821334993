import shutil

import pytest

from kernelevolve import hardware
from kernelevolve.errors import ToolchainError
from kernelevolve.hardware import ceilings

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")


@needs_compiler
def test_ceilings_are_measured_once_and_kept(tmp_path):
    here = hardware.detect()
    first = ceilings.cached(here, 1, tmp_path)
    assert first.ceilings is not None
    assert first.ceilings.threads == 1
    assert first.ceilings.peak_gflops["float32"] > first.ceilings.peak_gflops["float64"] > 0
    rates = [b.gbps for b in first.ceilings.bandwidths]
    assert rates == sorted(rates, reverse=True)
    assert {256 << 10, 4 << 20, 64 << 20, 512 << 20} <= {b.footprint_bytes for b in first.ceilings.bandwidths}
    assert ceilings.cached(here, 1, tmp_path) == first

    (file,) = (tmp_path / "ceilings").iterdir()
    file.write_text("{")
    again = ceilings.cached(here, 1, tmp_path)
    assert again.ceilings is not None
    assert ceilings.cached(here, 1, tmp_path) == again


@needs_compiler
def test_what_threads_cost_is_measured_where_there_are_several(tmp_path):
    here = hardware.detect()
    assert ceilings.cached(here, 1, tmp_path).ceilings.fork_join_us is None
    cost = ceilings.cached(here, 2, tmp_path).ceilings.fork_join_us
    assert 0.01 < cost < 10_000


def test_a_footprint_never_seems_slower_than_a_larger_one():
    text = '{"read_gbps": {"1024": 10.0, "4096": 30.0, "16384": 20.0}, "peak_gflops": {"float32": 5.0}}'
    read = ceilings._read(text, threads=2)
    assert [(b.footprint_bytes, b.gbps) for b in read.bandwidths] == [
        (1024, 30.0),
        (4096, 30.0),
        (16384, 20.0),
    ]
    assert read.bandwidth_gbps(20000) == 20.0


def test_a_missing_compiler_is_named_with_its_remedy(tmp_path, monkeypatch):
    here = hardware.detect()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"no g\+\+.*apt install g\+\+"):
        ceilings.cached(here, 1, tmp_path)
