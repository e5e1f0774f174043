"""The squared maximum mean discrepancy between two sets of features, without bias, with its 95 % interval.

KID and CMMD are this number under two kernels. KID: (x.y / d + 1)^3; being unbiased it may come out slightly negative
for two samples of one distribution, and multiplied by 1000 it is the number in the paper's tables. CMMD (Jayasumana et
al. 2024): a Gaussian kernel on CLIP features of length 1, sigma 10, the biased estimate (a set's pairs with itself
count), multiplied by 1000, all as published.

Everything is summed in blocks in float64: memory grows with the number of pictures, not with its square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.distances import check_features
from mogle.metrics.intervals import Estimate, Z

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (n, d), (m, d) -> (n, m)
BLOCK = 2048  # rows that are in memory in float64 at once
SIGMA, SCALE = 10.0, 1000.0  # of CMMD


class KernelTable(NamedTuple):
    """What is known of a kernel table (n, m) of two sets, or (n, n) of one with itself, its diagonal left out.

    Attributes:
        rows, columns: their sums.
        row_means, mean: of each row, and of all.
        variance: of a set with itself E|phi(x) - mu|^2; what is rounding alone counts as none.
        interaction: mean square of what rows and columns do not explain, E<phi(x) - mu_x, phi(y) - mu_y>^2, without
            bias.
    """

    rows: np.ndarray
    columns: np.ndarray
    row_means: np.ndarray
    mean: float
    variance: float
    interaction: float


def _blocks(features: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The number of a block's first row, and its rows in float64."""
    return ((i, features[i : i + BLOCK].astype(np.float64)) for i in range(0, len(features), BLOCK))


def kernel_table(kernel: Kernel, left: np.ndarray, right: np.ndarray | None = None) -> KernelTable:
    """Features (n, d) with others (m, d), or with themselves."""
    same, right = right is None, left if right is None else right
    rows = np.zeros(len(left))
    columns = rows if same else np.zeros(len(right))
    squares = diagonal = 0.0
    for i, a in _blocks(left):
        for j, b in _blocks(right):
            if same and j < i:
                continue  # the table is symmetric: half of it tells all
            part = kernel(a, b)
            if same and i == j:
                diagonal += float(np.trace(part))
                np.fill_diagonal(part, 0)
            else:
                columns[j : j + len(b)] += part.sum(axis=0)
            rows[i : i + len(a)] += part.sum(axis=1)
            squares += (1 + (same and i < j)) * float(np.vdot(part, part))
    n, m, total = len(rows), len(columns), rows.sum()
    row_means = rows / (m - same)
    mean, by_row, by_column = float(row_means.mean()), np.square(rows).sum(), np.square(columns).sum()
    if same and n > 3:  # U-centred (Szekely and Rizzo 2014)
        left_over = (squares - 2 * by_row / (n - 2) + total**2 / ((n - 1) * (n - 2))) / (n * (n - 3))
    elif same:
        left_over = 0.0
    else:
        left_over = (squares - by_row / m - by_column / n + total**2 / (n * m)) / ((n - 1) * (m - 1))
    spread = diagonal / n - mean
    variance = spread if spread > 1e-12 * abs(diagonal / n) else 0.0
    return KernelTable(rows, columns, row_means, mean, variance, max(0.0, float(left_over)))


def kernel_tables(real: np.ndarray, fake: np.ndarray, kernel: Kernel) -> tuple[KernelTable, KernelTable, KernelTable]:
    """Features (n, d) and (m, d) -> the tables of real with real, fake with fake, real with fake."""
    return kernel_table(kernel, real), kernel_table(kernel, fake), kernel_table(kernel, real, fake)


def discrepancy(own: KernelTable, other: KernelTable, between: KernelTable) -> Estimate:
    """`kernel_tables` of real and fake -> the unbiased squared discrepancy with its 95 % interval.

    Its variance is exact in form (Hoeffding): what comes from pairs of pictures, all that is left where both sets are
    alike and what a bootstrap would count twice; and what comes from single ones, which grows with the discrepancy
    itself. So the ends are those values that would make the one found an unlikely one (a score interval, as Wilson's is
    for shares), not the one found plus and minus its own standard error.
    """
    n, m = len(between.rows), len(between.columns)
    value, crossed = own.mean + other.mean - 2 * between.mean, between.interaction
    pairs = 4 * crossed / (n * m)
    linear = typical = 0.0
    for table, others, k, size in ((own, between.rows / m, n, m), (other, between.columns / n, m, n)):
        pairs += 2 * table.interaction / (k * (k - 1))
        # the spread of each picture's pull, less what comes from not knowing both means exactly
        spread = float(np.var(table.row_means - others, ddof=1))
        linear += 4 * (spread - table.interaction / max(1, k - 1) - crossed / size) / k
        # what a discrepancy of 1 in no special direction would add
        typical += 4 * table.interaction / table.variance / k if table.variance else 0.0
    noise = float(np.sqrt(pairs))
    # variance per unit of discrepancy: as found, or as typical where the discrepancy drowns in noise
    slope = (max(linear, 0.0) + noise * typical) / (max(value, 0.0) + noise) if noise else 0.0
    middle = value + Z**2 * slope / 2
    half = Z * float(np.sqrt(max(0.0, pairs + slope * value + (Z * slope / 2) ** 2)))
    return Estimate(value, min(value, middle - half), max(value, middle + half))


def cubic(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(x.y / d + 1)^3."""
    base = left @ right.T
    base /= left.shape[1]
    base += 1
    return base * base * base  # many times faster than ** 3


def gaussian(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """exp(-|x - y|^2 / (2 sigma^2)) - 1 of directions; of unit vectors |x - y|^2 = 2 - 2 x.y.

    The constant drops out of the discrepancy, and expm1 keeps the digits that 1 - exp would lose.
    """
    left = left / np.linalg.norm(left, axis=1, keepdims=True).clip(min=1e-12)
    right = right / np.linalg.norm(right, axis=1, keepdims=True).clip(min=1e-12)
    return np.expm1((left @ right.T - 1) / SIGMA**2)


def kid(real: np.ndarray, fake: np.ndarray) -> Estimate:
    """Features (n,d) and (m,d) -> the unbiased estimate over the full sets, not multiplied by 1000, with its interval.

    Raises:
        MogleError: sets of one picture, of different widths, or with NaN.
    """
    check_features(real, fake, "KID")
    return discrepancy(*kernel_tables(real, fake, cubic))


def kid_difference(real: np.ndarray, first: np.ndarray, second: np.ndarray) -> Estimate:
    """KID of second less KID of first, both against real (m,d); row i of first and second (n,d) is of one sample.

    What a sample's mask, sentence and noise do to both drops out of the difference, and so does the table of the real
    ones with each other. The interval is a jackknife's, over samples and over real ones: a little too wide where both
    sets are alike, as pairs of pictures count twice in it.

    Raises:
        MogleError: fewer than three rows, other widths or numbers of rows, or NaN.
    """
    for features in (first, second):
        check_features(real, features, "KID")
    n, m = len(first), len(real)
    if n != len(second) or min(n, m) < 3:
        raise MogleError(
            f"KID: found {n} and {len(second)} pictures and {m} real ones, expected pairs, and at least three of each"
        )
    # all that follows is linear in the tables, so their differences are enough
    own = kernel_table(cubic, second).rows - kernel_table(cubic, first).rows
    gained, lost = kernel_table(cubic, real, second), kernel_table(cubic, real, first)
    by_real, by_sample = gained.rows - lost.rows, gained.columns - lost.columns
    value = own.sum() / (n * (n - 1)) - 2 * by_real.sum() / (n * m)
    without_sample = (own.sum() - 2 * own) / ((n - 1) * (n - 2)) - 2 * (by_real.sum() - by_sample) / (m * (n - 1))
    without_real = -2 * (by_real.sum() - by_real) / ((m - 1) * n)
    half = Z * float(np.sqrt((n - 1) * np.var(without_sample) + (m - 1) * np.var(without_real)))
    return Estimate(float(value), float(value) - half, float(value) + half)


def kid_subsets(real: np.ndarray, fake: np.ndarray, *, size: int = 1000, subsets: int = 100) -> np.ndarray:
    """The estimate on ``subsets`` random subsets of at most ``size`` rows each, as clean-fid does it: (subsets,).

    Their mean is the published kind of KID. Their spread tells how much one subset varies, and overstates the
    uncertainty of the full-set estimate.
    """
    rng, size = np.random.default_rng(0), min(size, len(real), len(fake))

    def part(rows: np.ndarray) -> np.ndarray:
        return rows[rng.choice(len(rows), size, replace=False)]

    return np.array([kid(part(real), part(fake)).value for _ in range(subsets)])


def cmmd(real: np.ndarray, fake: np.ndarray) -> Estimate:
    """Features (n, d) and (m, d) of CLIP ViT-L/14 at 336 px (or of another network) -> CMMD as published.

    Its interval is that of the number without bias, which is about 20 / n on two sets of n.
    """
    check_features(real, fake, "CMMD")
    own, other, between = kernel_tables(real, fake, gaussian)
    # pairs of a picture with itself count, and this kernel is 0 for them
    within = own.mean * (1 - 1 / len(real)) + other.mean * (1 - 1 / len(fake))
    _, low, high = discrepancy(own, other, between)
    return Estimate(SCALE * (within - 2 * between.mean), SCALE * low, SCALE * high)
