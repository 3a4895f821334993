"""Where a kernel may be served, given where it was measured."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from kernelevolve.registry.domain import domain
from kernelevolve.schema import Measurement
from kernelevolve.testing.records import a_measurement

VERDICTS = ("faster", "same", "slower", "ambiguous")


def measured(verdict: str = "faster", dtype: str = "float32", **axes: int) -> Measurement:
    return a_measurement(axes=axes, dtypes={"T": dtype}, verdict=verdict)


measurements = st.lists(
    st.builds(
        measured,
        verdict=st.sampled_from(("faster", "faster", "faster", *VERDICTS)),
        dtype=st.sampled_from(("float32", "bfloat16")),
        m=st.sampled_from((1, 2, 4, 8)),
        n=st.sampled_from((16, 32, 64)),
        k=st.sampled_from((1, 3)),
    ),
    max_size=24,
)


def boxes(found):
    return [dict(box.axes) for box in found]


def test_a_single_win_is_a_point():
    assert boxes(domain([measured(n=64)])) == [{"n": (64, 64)}]


def test_without_a_win_nothing_is_served():
    assert domain([measured(verdict, n=64) for verdict in VERDICTS[1:]]) == ()
    assert domain([]) == ()


def test_two_wins_along_one_axis_make_an_interval():
    assert boxes(domain([measured(n=64), measured(n=1024)])) == [{"n": (64, 1024)}]


def test_a_loss_in_between_splits_the_interval():
    found = domain([measured(n=64), measured("same", n=256), measured(n=1024), measured(n=4096)])
    assert boxes(found) == [{"n": (64, 64)}, {"n": (1024, 4096)}]


def test_a_rectangle_needs_all_four_corners():
    corners = [measured(m=m, n=n) for m, n in product((1, 8), (16, 64))]
    assert boxes(domain(corners)) == [{"m": (1, 8), "n": (16, 64)}]
    assert boxes(domain(corners[:3])) == [{"m": (1, 1), "n": (16, 64)}, {"m": (1, 8), "n": (16, 16)}]


def test_element_types_are_apart():
    found = domain([measured(n=64), measured(n=256, dtype="bfloat16")])
    assert [(box.dtypes["T"], box.axes["n"]) for box in found] == [("bfloat16", (256, 256)), ("float32", (64, 64))]


def test_the_same_shape_must_win_with_every_content():
    assert domain([measured(n=64), measured("slower", n=64)]) == ()


@given(measurements)
def test_every_win_is_served_and_no_other_measured_point(found):
    served = domain(found)
    for m in found:
        twins = [o for o in found if (o.axes, o.dtypes) == (m.axes, m.dtypes)]
        won = all(o.verdict == "faster" for o in twins)
        assert any(box.contains(m.axes, m.dtypes) for box in served) == won


@given(measurements)
def test_every_corner_of_every_box_was_measured_and_won(found):
    wins = [(m.axes, m.dtypes) for m in found if m.verdict == "faster"]
    for box in domain(found):
        for corner in product(*box.axes.values()):
            assert (dict(zip(box.axes, corner, strict=True)), box.dtypes) in wins


@given(measurements)
def test_no_box_lies_inside_another(found):
    served = domain(found)
    for one, other in product(served, repeat=2):
        low = {name: edge[0] for name, edge in one.axes.items()}
        high = {name: edge[1] for name, edge in one.axes.items()}
        assert one == other or not (other.contains(low, one.dtypes) and other.contains(high, one.dtypes))


@given(st.data())
def test_the_order_of_the_measurements_does_not_matter(data):
    found = data.draw(measurements)
    assert domain(found) == domain(data.draw(st.permutations(found)))
