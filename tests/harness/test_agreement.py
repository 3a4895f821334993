"""How well estimates rank, on recorded numbers."""

import numpy as np
import pytest
from scipy import stats

from kernelevolve.harness.agreement import agreement

ESTIMATED = [12.0, 30.0, 18.0, 45.0, 27.0, 60.0, 33.0, 21.0]
MEASURED = [10.0, 28.0, 22.0, 70.0, 25.0, 52.0, 41.0, 15.0]


def test_the_coefficients_are_those_of_the_textbook() -> None:
    found = agreement(ESTIMATED, MEASURED)
    assert found is not None
    assert found.spearman == pytest.approx(stats.spearmanr(ESTIMATED, MEASURED).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(ESTIMATED, MEASURED).statistic)
    assert found.pairs == len(ESTIMATED)
    assert found.spearman_low <= found.spearman <= found.spearman_high <= 1
    assert found.kendall_low <= found.kendall <= found.kendall_high <= 1


def test_ties_are_counted_as_the_textbook_does() -> None:
    x, y = [1.0, 2.0, 2.0, 3.0, 5.0, 5.0], [2.0, 2.0, 1.0, 4.0, 4.0, 3.0]
    found = agreement(x, y)
    assert found is not None
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(x, y).statistic)


def test_only_the_order_counts() -> None:
    stretched = [value**3 for value in MEASURED]
    assert agreement(ESTIMATED, stretched) == agreement(ESTIMATED, MEASURED)
    perfect = agreement(ESTIMATED, [2 * value for value in ESTIMATED])
    assert perfect is not None
    assert (perfect.spearman, perfect.kendall) == pytest.approx((1.0, 1.0))
    backwards = agreement(ESTIMATED, [-value for value in ESTIMATED])
    assert backwards is not None
    assert (backwards.spearman, backwards.kendall) == pytest.approx((-1.0, -1.0))


def test_numbers_without_an_order_in_common_are_not_called_one() -> None:
    generator = np.random.default_rng(3)
    found = agreement(generator.random(40).tolist(), generator.random(40).tolist())
    assert found is not None
    assert found.spearman_low < 0 < found.spearman_high
    assert found.kendall_low < 0 < found.kendall_high


def test_more_pairs_make_the_interval_narrower() -> None:
    generator = np.random.default_rng(5)
    x = generator.random(200)
    y = x + generator.normal(0, 0.3, 200)
    few, many = agreement(x[:20].tolist(), y[:20].tolist()), agreement(x.tolist(), y.tolist())
    assert few is not None
    assert many is not None
    assert many.spearman_high - many.spearman_low < few.spearman_high - few.spearman_low


@pytest.mark.parametrize(
    ("estimated", "measured"), [([], []), ([1.0, 2.0], [1.0, 2.0]), ([3.0] * 9, range(9)), (range(9), [3.0] * 9)]
)
def test_nothing_is_said_of_too_little(estimated, measured) -> None:
    assert agreement(list(estimated), list(measured)) is None


def test_pairs_have_two_sides() -> None:
    with pytest.raises(ValueError, match="3 estimates for 2"):
        agreement([1.0, 2.0, 3.0], [1.0, 2.0])
