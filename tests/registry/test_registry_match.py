"""Which entry serves a machine and a shape."""

from kernelevolve.registry.match import Match, NoMatch, match
from kernelevolve.schema import Box
from kernelevolve.testing.records import a_candidate, a_hardware, a_measurement
from kernelevolve.testing.registry_records import an_entry

F32 = {"T": "float32"}
WIDE = (Box(dtypes=F32, axes={"N": (1, 1 << 20)}),)


def reason(entries, hardware=None, n=1024, dtypes=F32):
    found = match(entries, hardware or a_hardware(), {"N": n}, dtypes)
    assert isinstance(found, NoMatch)
    return found.reason


def test_a_shape_inside_the_domain_is_matched():
    entry = an_entry()
    assert match([entry], a_hardware(), {"N": 1024}, F32) == Match(entry)


def test_the_reason_of_a_miss_is_the_first_condition_that_leaves_nothing():
    entry = an_entry()
    assert reason([]) == "no_entry"
    assert reason([entry], hardware=a_hardware(key="another-cpu")) == "hardware"
    assert reason([entry], dtypes={"T": "bfloat16"}) == "dtype"
    assert reason([entry], n=1025) == "shape"


def test_a_machine_is_known_by_its_aliases():
    entry = an_entry(hardware=a_hardware(key="new-name", aliases=("old-name",)))
    assert isinstance(match([entry], a_hardware(key="old-name"), {"N": 1024}, F32), Match)
    entry = an_entry(hardware=a_hardware(key="old-name"))
    here = a_hardware(key="new-name", aliases=("old-name",))
    assert isinstance(match([entry], here, {"N": 1024}, F32), Match)


def test_two_machines_that_share_only_an_alias_are_different():
    entry = an_entry(hardware=a_hardware(key="gpu-sxm", aliases=("gpu",)))
    assert reason([entry], hardware=a_hardware(key="gpu-pcie", aliases=("gpu",))) == "hardware"


def test_the_same_processor_with_fewer_instructions_is_another_machine():
    """As behind a hypervisor that hides AVX-512."""
    here, there = (a_hardware(architecture=f"x86-64-v{level}") for level in (4, 3))
    entry = an_entry(hardware=here)
    assert match([entry], here, {"N": 1024}, F32) == Match(entry)
    assert reason([entry], hardware=there) == "hardware"
    assert "(x86-64-v4)" in match([entry], there, {"N": 1024}, F32).message


def test_a_domain_over_other_axes_contains_nothing():
    assert reason([an_entry(domain=(Box(dtypes=F32, axes={}),))]) == "shape"
    assert reason([an_entry(domain=(Box(dtypes=F32, axes={"N": (1, 2048), "M": (1, 2048)}),))]) == "shape"


def test_the_entry_that_is_better_on_the_nearest_workload_serves():
    def entry(block, small, large):
        evidence = (a_measurement(small, axes={"N": 64}), a_measurement(large, axes={"N": 1 << 16}))
        return an_entry(candidate=a_candidate(tunables={"BLOCK": block}), evidence=evidence, domain=WIDE)

    for_small, for_large = entry(8, 3.0, 1.5), entry(16, 1.5, 2.0)
    for order in ([for_small, for_large], [for_large, for_small]):
        assert match(order, a_hardware(), {"N": 128}, F32) == Match(for_small)
        assert match(order, a_hardware(), {"N": 40_000}, F32) == Match(for_large)


def test_equal_entries_are_chosen_between_in_any_order_alike():
    entries = [an_entry(candidate=a_candidate(tunables={"BLOCK": b})) for b in (8, 16, 32)]
    chosen = match(entries, a_hardware(), {"N": 1024}, F32)
    assert match(entries[::-1], a_hardware(), {"N": 1024}, F32) == chosen
