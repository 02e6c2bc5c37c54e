"""Times and sizes in words, and the terminal's plugin, which words times alike."""

import pytest
from robust_transfer.quantities import duration, size
from snakemake_logger_plugin_robust_transfer.steps import span

TIMES: dict[float, str] = {
    -1: "0 s",
    0: "0 s",
    59: "59 s",
    99: "99 s",
    100: "2 min",
    5900: "98 min",
    7200: "2 h",
    47 * 3600: "47 h",
    72 * 3600: "3 days",
    400_000: "5 days",
}
SIZES: dict[float, str] = {
    0: "0 B",
    999: "999 B",
    1000: "1.0 kB",
    2_500_000: "2.5 MB",
    7e9: "7.0 GB",
    3e12: "3.0 TB",
    4e15: "4000.0 TB",
}


@pytest.mark.parametrize("seconds", TIMES)
def test_times_are_worded_alike_everywhere(seconds: float) -> None:
    assert duration(seconds) == span(seconds) == TIMES[seconds]


@pytest.mark.parametrize("number", SIZES)
def test_sizes_are_in_a_unit_that_fits(number: float) -> None:
    assert size(number) == SIZES[number]
