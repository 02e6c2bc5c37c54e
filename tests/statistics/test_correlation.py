"""The interval of an R² over few networks covers what it says, and one network that makes it all is seen."""

import numpy as np
import pytest
from robust_transfer.statistics.correlation import FEWEST, correlation, pearson, r2_interval, ranks, spearman
from scipy import stats

DRAWS = 4000


@pytest.mark.parametrize("rho2", [0, 0.5, 0.9])
@pytest.mark.parametrize("n", [5, 8, 12])
def test_the_interval_covers_the_true_share(n: int, rho2: float) -> None:
    """95 %, within 3 standard errors below (0.34 points each) and 2.5 points above: ends at 0 err on the wide side."""
    random = np.random.default_rng(n)
    x, noise = random.standard_normal((2, DRAWS, n))
    y = rho2**0.5 * x + (1 - rho2) ** 0.5 * noise
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    r = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    ends = np.array([r2_interval(float(one), n) for one in r])
    covered = np.mean((ends[:, 0] <= rho2) & (rho2 <= ends[:, 1]))
    assert 0.94 <= covered <= 0.975
    assert ends.min() >= 0
    assert ends.max() <= 1


def test_it_is_numpys_correlation_with_an_interval_around_it() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal(9)
    y = -x + random.standard_normal(9)
    found = correlation(x.tolist(), y.tolist())
    assert found
    assert found.r == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.r2_low < found.r**2 < found.r2_high
    rest = [np.corrcoef(np.delete(x, i), np.delete(y, i))[0, 1] for i in range(9)]
    assert found.without_one == pytest.approx((min(rest), max(rest)))


def test_a_correlation_that_one_network_makes_is_seen() -> None:
    """Five networks whose line falls, and one that did not train: r is near 1, and without that one near −1."""
    source, transfer = [97.0, 97.5, 98.0, 98.5, 99.0, 10.0], [81.0, 80.8, 80.2, 80.1, 79.5, 25.0]
    found = correlation(source, transfer)
    assert found
    assert found.r > 0.99
    assert found.without_one[0] < -0.9
    alone = correlation([90.0] * 5 + [10.0], [80.0, 81, 79, 80, 81, 20])
    assert alone
    assert alone.without_one[0] == 0


def test_too_few_networks_and_constant_accuracies_have_none() -> None:
    values = [float(i) for i in range(FEWEST)]
    assert correlation(values[1:], values[1:]) is None
    assert correlation(values, [3.0] * FEWEST) is None
    perfect = correlation(values, values)
    assert perfect
    assert perfect.r2_low == pytest.approx(1)
    assert perfect.r2_high <= 1


@pytest.mark.parametrize("n", [5, 9, 40])
def test_coefficients_are_scipys_with_equal_values_at_their_mean_rank(n: int) -> None:
    random = np.random.default_rng(n)
    x = random.integers(0, 4, n).astype(float).tolist()
    y = (np.array(x) + random.standard_normal(n)).tolist()
    rho, r = spearman(x, y), pearson(x, y)
    assert rho
    assert r
    assert ranks(x).tolist() == stats.rankdata(x).tolist()
    assert rho.value == pytest.approx(stats.spearmanr(x, y).statistic)
    found = stats.pearsonr(x, y)
    assert r.value == pytest.approx(found.statistic)
    assert (r.low, r.high) == pytest.approx(found.confidence_interval(0.95), abs=1e-6)
    assert rho.low < rho.value < rho.high


@pytest.mark.parametrize("rho", [0, 0.8, -0.95])
@pytest.mark.parametrize("n", [5, 8, 13])
def test_the_interval_of_a_rank_correlation_covers_the_true_one(n: int, rho: float) -> None:
    random = np.random.default_rng(n)
    x, noise = random.standard_normal((2, 1000, n))
    y = rho * x + (1 - rho**2) ** 0.5 * noise
    true = 6 / np.pi * np.arcsin(rho / 2)
    found = [spearman(*pair) for pair in zip(x.tolist(), y.tolist(), strict=True)]
    assert np.mean([one is not None and one.low <= true <= one.high for one in found]) >= 0.91


def test_ranks_that_all_agree_are_no_certainty() -> None:
    x = [1.0, 2.0, 3.0, 4.0, 5.0]
    up, down = spearman(x, x), spearman(x, x[::-1])
    assert up
    assert down
    assert (up.value, up.high) == (1, 1)
    assert up.low < 0.5
    assert (down.low, down.value, down.high) == (-1, -1, pytest.approx(-up.low))


def test_coefficients_need_five_networks_and_some_spread() -> None:
    four, five = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    for coefficient in (spearman, pearson):
        assert coefficient(four, four) is None
        assert coefficient(five, [1.0] * 5) is None
