from pathlib import Path

import pytest

from kernelevolve import hardware
from kernelevolve.errors import UnknownNameError
from kernelevolve.hardware import cgroup, cpu

RECORDED = """\
processor\t: 0
vendor_id\t: {vendor}
cpu family\t: 25
model\t\t: 17
model name\t: {name}
flags\t\t: {flags}

processor\t: 1
vendor_id\t: {vendor}
model name\t: another
"""
V2 = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3 = f"{V2} avx avx2 bmi1 bmi2 f16c fma abm movbe"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"

NEOVERSE = """\
processor\t: 0
Features\t: fp asimd atomics fphp asimdhp asimddp sve bf16 i8mm
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd40
"""


def describe(name: str, vendor: str = "AuthenticAMD", flags: str = V3, machine: str = "x86_64"):
    text = RECORDED.format(name=name, vendor=vendor, flags=flags)
    return cpu.describe(text, machine=machine, cores=2, memory_bytes=1 << 30, toolchain={})


@pytest.mark.parametrize(
    ("vendor", "name", "key"),
    [
        ("AuthenticAMD", "AMD EPYC 7B13 64-Core Processor", "amd-epyc-7b13-2c"),
        ("AuthenticAMD", "AMD EPYC", "amd-epyc-f25m17-2c"),
        ("AuthenticAMD", "AMD EPYC Processor", "amd-epyc-f25m17-2c"),
        ("AuthenticAMD", "AMD Ryzen 7 7840U w/ Radeon 780M Graphics", "amd-ryzen-7-7840u-2c"),
        ("GenuineIntel", "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c-2c"),
        ("GenuineIntel", "Intel(R) Xeon(R) CPU @ 2.20GHz", "intel-xeon-f25m17-2c"),
        ("GenuineIntel", "13th Gen Intel(R) Core(TM) i9-13900K", "intel-core-i9-13900k-2c"),
        ("GenuineIntel", "QEMU Virtual CPU version 2.5+", "intel-qemu-virtual-f25m17-2c"),
    ],
)
def test_the_key_is_the_model_without_its_clock_and_trademarks(vendor, name, key):
    assert describe(name, vendor).key == key


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ("sse2", "x86-64"),
        (V2, "x86-64-v2"),
        (V3, "x86-64-v3"),
        (V4, "x86-64-v4"),
        (V4.replace("movbe", ""), "x86-64-v2"),
    ],
)
def test_the_architecture_is_the_highest_complete_level(flags, level):
    assert describe("AMD EPYC", flags=flags).architecture == level


def test_features_are_sorted_and_only_those_that_kernels_use():
    assert describe("AMD EPYC", flags=f"{V3} msr apic amx_tile").features == (
        "amx_tile", "avx", "avx2", "f16c", "fma", "sse4_2",
    )  # fmt: skip


def test_an_arm_core_is_named_by_its_part():
    found = cpu.describe(NEOVERSE, machine="aarch64", cores=4, memory_bytes=1 << 30, toolchain={})
    assert (found.key, found.vendor, found.architecture) == ("arm-neoverse-v1-4c", "arm", "aarch64")
    assert found.features == ("asimddp", "asimdhp", "bf16", "i8mm", "neon", "sve")


def test_this_machine_is_found_under_its_own_key():
    here = hardware.detect()
    assert here.device == "cpu"
    assert here.cores >= 1
    assert here.memory_bytes > 1 << 28
    assert hardware.find(None) == hardware.find(here.key) == here
    assert hardware.detect_all()[0] == here


def test_hardware_that_is_not_here_is_an_error_that_lists_what_is():
    with pytest.raises(UnknownNameError, match=rf"nvidia-z9000.*{hardware.detect().key}"):
        hardware.find("nvidia-z9000")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_quotas_of_version_2_groups_bind_from_any_ancestor(tmp_path):
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/job\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/job/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/job/memory.max": "1073741824\n",
            "sys/fs/cgroup/pod/memory.max": "max\n",
        },
    )
    assert cgroup.cpu_quota(root) == 1.5
    assert cgroup.memory_limit(root) == 1 << 30


def test_quotas_of_version_1_groups_are_read_at_the_mount_when_the_path_is_not_mounted(tmp_path):
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
        },
    )
    assert cgroup.cpu_quota(root) == 4.0
    assert cgroup.memory_limit(root) == 2 << 30


def test_without_groups_nothing_binds(tmp_path):
    assert cgroup.cpu_quota(tmp_path) is None
    assert cgroup.memory_limit(tmp_path) is None


@pytest.mark.parametrize(
    ("vendor", "family", "model", "name"),
    [
        ("AuthenticAMD", 23, 1, "Zen"), ("AuthenticAMD", 23, 49, "Zen 2"), ("AuthenticAMD", 25, 1, "Zen 3"),
        ("AuthenticAMD", 25, 17, "Zen 4"), ("AuthenticAMD", 25, 33, "Zen 3"), ("AuthenticAMD", 26, 2, "Zen 5"),
        ("GenuineIntel", 6, 0x8F, "Sapphire Rapids"), ("GenuineIntel", 6, 1, None), ("AuthenticAMD", 99, 1, None),
    ],
)  # fmt: skip
def test_a_microarchitecture_is_named_where_it_is_known(vendor, family, model, name):
    text = f"vendor_id : {vendor}\ncpu family : {family}\nmodel : {model}\nmodel name : X 1\nflags : fpu\n"
    assert cpu.describe(text, "x86_64", 2, 1 << 30, {}).microarchitecture == name


def test_cache_sizes_are_those_of_the_data_caches(tmp_path):
    for index, (kind, level, size) in enumerate(
        [("Data", 1, "32K"), ("Instruction", 1, "32K"), ("Unified", 3, "32768K")]
    ):
        cache = tmp_path / f"index{index}"
        cache.mkdir()
        for name, value in (("type", kind), ("level", level), ("size", size)):
            (cache / name).write_text(f"{value}\n")
    assert cpu.cache_bytes(tmp_path) == {"L1d": 32 << 10, "L3": 32 << 20}
