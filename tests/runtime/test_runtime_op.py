"""A call is answered by a certified kernel or by the reference, and the answer is right either way."""

import logging
import threading

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from serving import HEAD_BOX, HEAD_KERNEL, Place

from kernelevolve.errors import UsageError
from kernelevolve.harness.build import Built, build
from kernelevolve.runtime import Op
from kernelevolve.schema import Box, Candidate, Limits


def expected_head(x, k):
    return x[:, :k].contiguous(), torch.arange(int(k)).expand(x.shape[0], int(k)).contiguous()


def agree(got, expected):
    return len(got) == len(expected) and all(
        g.dtype == e.dtype and torch.equal(g, e) for g, e in zip(got, expected, strict=True)
    )


# --- hits ---


def test_a_hit_gives_what_the_kernel_gives_when_called_directly(place: Place, head: Op):
    x = torch.randn(4, 16)
    built = build(Candidate(language="cpp", files={"main.cpp": HEAD_KERNEL}), place.hardware, Limits(), place.cache)
    assert isinstance(built, Built)
    values, indices = torch.empty(4, 3), torch.empty(4, 3, dtype=torch.int64)
    built.language.load(built.artifact).run(x, 3, values, indices)
    assert agree(head(x, 3), (values, indices))
    assert (head.stats.hits, head.stats.misses) == (1, {})


def test_many_hits_are_counted_and_their_results_are_apart(head: Op):
    inputs = [torch.randn(4, 16) for _ in range(10)]
    results = [head(x, 3) for x in inputs]
    assert all(agree(got, expected_head(x, 3)) for x, got in zip(inputs, results, strict=True))
    assert (head.stats.hits, head.stats.fallbacks) == (10, 0)


def test_inputs_may_be_named(head: Op):
    x = torch.randn(2, 20)
    assert agree(head(k=2, x=x), expected_head(x, 2))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'k'"):
        head(x)


def test_results_go_into_the_caller_s_tensors(head: Op):
    x, out = torch.randn(4, 16), (torch.empty(4, 3), torch.empty(4, 3, dtype=torch.int64))
    versions = [tensor._version for tensor in out]
    for turn in range(1, 4):
        x += 1
        assert head(x, 3, out=out) is out
        assert agree(out, expected_head(x, 3))
        assert head.stats.hits == turn
    assert all(tensor._version > before for tensor, before in zip(out, versions, strict=True))


def test_tensors_of_the_caller_s_that_a_kernel_cannot_write_are_filled_all_the_same(head: Op):
    x = torch.randn(4, 16)
    out = [torch.empty(3, 4).t(), torch.empty(4, 6, dtype=torch.int64)[:, :3]]
    head(x, 3, out=out)
    assert agree(out, expected_head(x, 3))


@pytest.mark.parametrize(
    "out",
    [
        (torch.empty(4, 2), torch.empty(4, 3, dtype=torch.int64)),
        (torch.empty(4, 3), torch.empty(4, 3, dtype=torch.int32)),
        (torch.empty(4, 3),),
        torch.empty(4, 3),
        3,
    ],
)
@pytest.mark.parametrize("n", [16, 999])
def test_an_out_of_another_shape_or_type_is_refused(head: Op, n, out):
    with pytest.raises(UsageError, match=r"pass values \(4, 3\) float32, indices \(4, 3\) int64"):
        head(torch.randn(4, n), 3, out=out)


def test_a_single_output_is_a_tensor(scale: Op):
    x, bias, w = torch.randn(3, 8), torch.arange(4), torch.randn(8)
    y = scale(x, bias, w)
    assert torch.allclose(y, x * w + bias[:-1, None], atol=1e-6)
    assert torch.equal(scale(x, bias, w, out=torch.empty(3, 8)), y)
    assert scale.stats.hits == 2


def test_concurrent_callers_get_their_own_answers(head: Op):
    wrong, start = [], threading.Barrier(6)

    def call(seed):
        generator = torch.Generator().manual_seed(seed)
        start.wait()
        for turn in range(200):
            x = torch.randn(1 + (seed + turn) % 8, 16, generator=generator)
            if not agree(head(x, 5), expected_head(x, 5)):
                wrong.append((seed, turn))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (head.stats.hits, head.stats.fallbacks) == (1200, 0)


# --- constants that a kernel repacks ---


def test_weights_are_packed_again_when_they_change(scale: Op):
    x, bias, w = torch.randn(3, 8), torch.arange(4), torch.randn(8)
    for _ in range(3):
        assert torch.allclose(scale(x, bias, w), x * w + bias[:-1, None], atol=1e-6)
        w.mul_(2)
    for _ in range(20):  # fresh weights, often where freed ones lay
        fresh = torch.randn(8)
        assert torch.allclose(scale(x, bias, fresh), x * fresh + bias[:-1, None], atol=1e-6)
        del fresh
    assert scale.stats.fallbacks == 0


def test_weights_that_an_operation_wrote_itself_are_packed_again(scale: Op):
    x, bias, w = torch.randn(1, 8), torch.arange(2), torch.randn(1, 8)
    scale(x, bias, w[0])
    scale(x, bias, torch.zeros(8), out=w)
    assert torch.equal(scale(x, bias, w[0]), torch.zeros(1, 8))
    assert scale.stats.hits == 3


def test_weights_whose_changes_cannot_be_seen_are_left_to_the_reference(scale: Op):
    with torch.inference_mode():
        x, bias, w = torch.randn(3, 8), torch.arange(4), torch.randn(8)
        for _ in range(2):
            assert torch.allclose(scale(x, bias, w), x * w + bias[:-1, None], atol=1e-6)
            w.mul_(2)
    assert scale.stats.misses == {"untracked_constant": 2}


# --- misses ---


def test_an_empty_registry_leaves_everything_to_the_reference(place: Place):
    head = place.op("head")
    x = torch.randn(4, 16)
    assert agree(head(x, 3), expected_head(x, 3))
    assert (head.stats.hits, head.stats.misses) == (0, {"no_entry": 1})


@pytest.mark.parametrize(
    ("x", "k", "reason"),
    [
        (torch.randn(4, 65), 3, "shape"),
        (torch.randn(4, 16), 0, "shape"),
        (torch.randn(4, 16).bfloat16(), 3, "dtype"),
        (torch.randn(4, 16).double(), 3, "dtype"),
        (torch.randn(16, 4).t(), 3, "not_contiguous"),
        (torch.randn(4, 32)[:, ::2], 3, "not_contiguous"),
        (torch.randn(4 * 16 + 1)[1:].view(4, 16), 3, "unaligned"),
        (torch.randn(4, 16, requires_grad=True), 3, "grad"),
        (torch.randn(4, 16, device="meta"), 3, "device"),
        (torch.randn(4, 16), True, "scalar"),
        (torch.randn(4, 16), torch.tensor(3), "scalar"),
        (torch.randn(4, 16), 13, "raised"),
        (torch.randn(4, 16).as_subclass(type("Mine", (torch.Tensor,), {})), 3, "arguments"),
    ],
)
def test_what_no_kernel_has_proved_itself_on_is_left_to_the_reference(head: Op, caplog, x, k, reason):
    head(torch.randn(4, 16), 3)  # so that a plan for this shape is at hand
    caplog.set_level(logging.INFO, "kernelevolve.runtime")
    for _ in range(3):
        got = head(x, k)
        if not x.is_meta:
            assert agree(got, expected_head(x, k))
    assert head.stats.hits == 1
    assert head.stats.misses == {reason: 3}
    assert head.stats.fallbacks == 3
    assert len([r for r in caplog.records if f"({reason})" in r.getMessage()]) == 1


def test_a_negated_view_of_one_element_is_not_mistaken_for_its_memory(place: Place):
    box = Box(dtypes={"T": "float32"}, axes={"batch": (1, 1), "n": (1, 1), "k": (1, 1)})
    place.publish("head", HEAD_KERNEL, box)
    head = place.op("head")
    x = torch.tensor([[1.0 + 2.0j]]).conj().imag
    assert x.is_contiguous()
    assert head(torch.ones(1, 1), 1)[0].item() == 1
    assert head(x, 1)[0].item() == -2
    assert (head.stats.hits, head.stats.misses) == (1, {"not_contiguous": 1})


def test_gradients_flow_through_the_reference(head: Op):
    x = torch.randn(4, 16, requires_grad=True)
    head(x, 3)[0].sum().backward()
    assert x.grad is not None and x.grad.sum() == 12
    with torch.no_grad():
        head(x, 3)
    assert (head.stats.hits, head.stats.misses) == (1, {"grad": 1})


def test_transforms_of_torch_func_see_the_reference(head: Op):
    x = torch.randn(5, 4, 16)
    got = torch.func.vmap(lambda row: head(row, 3)[0])(x)
    assert torch.equal(got, x[..., :3])
    slope = torch.func.grad(lambda row: head(row, 3)[0].sum())(x[0])
    assert slope.sum() == 12
    assert head.stats.hits == 0


def test_arguments_that_contradict_the_target_meet_the_reference_s_own_error(head: Op, scale: Op):
    with pytest.raises(IndexError):
        head(torch.randn(16), 3)
    with pytest.raises(RuntimeError, match="must match the size"):
        scale(torch.randn(3, 8), torch.arange(4), torch.randn(9))
    with pytest.raises(TypeError):
        head([[1.0, 2.0]], 1)
    assert head.stats.misses == {"arguments": 2}


def test_another_machine_s_kernels_are_not_served(place: Place):
    place.publish("head", HEAD_KERNEL, HEAD_BOX)
    head = place.op("head", hardware=place.hardware.model_copy(update={"key": "another", "aliases": ()}))
    x = torch.randn(4, 16)
    assert agree(head(x, 3), expected_head(x, 3))
    assert head.stats.misses == {"hardware": 1}


def test_a_machine_under_an_older_name_is_served(place: Place):
    place.publish("head", HEAD_KERNEL, HEAD_BOX, hardware=place.hardware.model_copy(update={"key": "older"}))
    head = place.op("head", hardware=place.hardware.model_copy(update={"aliases": ("older",)}))
    head(torch.randn(4, 16), 3)
    assert head.stats.hits == 1


def test_a_kernel_of_an_older_definition_of_the_target_is_not_served(place: Place, caplog):
    place.publish("head", HEAD_KERNEL, HEAD_BOX, target_digest="0" * 64)
    head = place.op("head")
    x = torch.randn(4, 16)
    assert agree(head(x, 3), expected_head(x, 3))
    assert agree(head(x.bfloat16(), 3), expected_head(x.bfloat16(), 3))
    assert head.stats.misses == {"target_changed": 1, "no_entry": 1}
    assert "target was edited" in caplog.text


def test_a_damaged_entry_is_not_served(place: Place, caplog):
    home = place.publish("head", HEAD_KERNEL, HEAD_BOX)
    (home / "entry.json").write_bytes(b"")
    head = place.op("head")
    x = torch.randn(4, 16)
    for _ in range(2):
        assert agree(head(x, 3), expected_head(x, 3))
    assert head.stats.misses == {"damaged": 2}
    assert caplog.text.count("(damaged)") == 1


def test_a_registry_that_cannot_be_listed_leaves_everything_to_the_reference(place: Place, monkeypatch, caplog):
    from kernelevolve.errors import RegistryError

    runtime = place.runtime()

    def refuse(*_):
        raise RegistryError("no route to the registry", remedy="check the network")

    monkeypatch.setattr(runtime.registry, "entries", refuse)
    head = runtime.op("head")
    x = torch.randn(4, 16)
    assert agree(head(x, 3), expected_head(x, 3))
    assert head.stats.misses == {"registry": 1}
    assert "check the network" in caplog.text


def test_a_kernel_that_does_not_build_is_not_served(place: Place, caplog):
    place.publish("head", HEAD_KERNEL.replace("int64_t i = 0", "int64_t j = 0"), HEAD_BOX)
    head = place.op("head")
    for n in (16, 16, 17):
        x = torch.randn(4, n)
        assert agree(head(x, 3), expected_head(x, 3))
    assert head.stats.misses == {"build_failed": 3}
    assert caplog.text.count("(build_failed)") == 1
    assert "not declared" in caplog.text


def test_the_next_best_kernel_serves_where_the_best_does_not_build(place: Place):
    from kernelevolve.testing.records import a_measurement

    broken = HEAD_KERNEL.replace("int64_t i = 0", "int64_t j = 0")
    shape = {"axes": {"batch": 4, "n": 16, "k": 3}}
    place.publish("head", broken, HEAD_BOX, evidence=(a_measurement(9.0, **shape),))
    place.publish("head", HEAD_KERNEL, HEAD_BOX, evidence=(a_measurement(2.0, **shape),))
    head = place.op("head")
    head(torch.randn(4, 16), 3)
    assert (head.stats.hits, head.stats.misses) == (1, {})


def test_without_a_compiler_the_reference_answers(place: Place, monkeypatch, caplog):
    from kernelevolve.languages import cpp

    place.publish("head", HEAD_KERNEL, HEAD_BOX)
    monkeypatch.setenv("PATH", "/nowhere")
    cpp.compiler.cache_clear()
    head = place.op("head")
    x = torch.randn(4, 16)
    try:
        for _ in range(2):
            assert agree(head(x, 3), expected_head(x, 3))
    finally:
        monkeypatch.undo()
        cpp.compiler.cache_clear()
    assert head.stats.misses == {"toolchain": 2}
    assert caplog.text.count("(toolchain)") == 1
    assert "g++" in caplog.text


def test_a_damaged_build_is_made_anew(place: Place):
    source = HEAD_KERNEL + "\n// a build of its own"
    candidate = Candidate(language="cpp", files={"main.cpp": source})
    built = build(candidate, place.hardware, Limits(), place.cache)
    assert isinstance(built, Built)
    built.artifact.write_bytes(b"")
    place.publish("head", source, HEAD_BOX)
    head = place.op("head")
    x = torch.randn(4, 16)
    assert agree(head(x, 3), expected_head(x, 3))
    assert head.stats.hits == 1


# --- never outside the domain ---


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(0, 10),
    n=st.sampled_from([1, 15, 16, 17, 40, 63, 64, 65, 200]),
    k=st.integers(0, 18),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.bfloat16]),
    into=st.booleans(),
)
def test_a_kernel_answers_inside_its_domain_and_nowhere_else(head: Op, *, batch, n, k, dtype, into):
    assume(k <= n)
    x = torch.randn(batch, n).to(dtype)
    inside = HEAD_BOX.contains({"batch": batch, "n": n, "k": k}, {"T": str(dtype).removeprefix("torch.")})
    expected = expected_head(x, k)
    hits = head.stats.hits
    got = head(x, k, out=tuple(map(torch.empty_like, expected))) if into else head(x, k)
    assert agree(got, expected)
    assert head.stats.hits - hits == (inside and k != 13)
