"""The squared maximum mean discrepancy between two sets of features, without bias, with its standard error.

KID and CMMD are this number under two kernels. KID: (x.y / d + 1)^3; being unbiased it may come out slightly negative
for two samples of one distribution, and multiplied by 1000 it is the number in the paper's tables. CMMD (Jayasumana et
al. 2024): a Gaussian kernel on CLIP features of length 1, sigma 10, the biased estimate (a set's pairs with itself
count), multiplied by 1000, all as published.

Everything is summed in blocks in float64: memory grows with the number of pictures, not with its square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mogle.errors import MogleError
from mogle.metrics.distances import blocks, check_features
from mogle.metrics.intervals import Estimate, Z

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (n, d), (m, d) -> (n, m)
SIGMA, SCALE = 10.0, 1000.0  # of CMMD


@dataclass(frozen=True)
class KernelTable:
    """Sums over a kernel table (n, m): of each row, of each column, of all squares; `same`: its diagonal apart."""

    rows: np.ndarray
    columns: np.ndarray
    squares: float
    diagonal: float
    same: bool

    @property
    def mean(self) -> float:
        return float(self.rows.sum() / (len(self.rows) * (len(self.columns) - self.same)))

    @property
    def row_means(self) -> np.ndarray:
        return self.rows / (len(self.columns) - self.same)

    @property
    def variance(self) -> float:
        """Of a table of one set with itself: E|phi(x) - mu|^2; what is rounding alone counts as none."""
        own = self.diagonal / len(self.rows)
        return own - self.mean if own - self.mean > 1e-12 * abs(own) else 0.0

    @property
    def interaction(self) -> float:
        """Mean square of what rows and columns do not explain: E<phi(x) - mu_x, phi(y) - mu_y>^2, without bias."""
        n, m, total = len(self.rows), len(self.columns), self.rows.sum()
        if self.same:  # U-centred (Szekely and Rizzo 2014)
            if n < 4:
                return 0.0
            left = self.squares - 2 * np.square(self.rows).sum() / (n - 2) + total**2 / ((n - 1) * (n - 2))
            return max(0.0, float(left / (n * (n - 3))))
        left = self.squares - np.square(self.rows).sum() / m - np.square(self.columns).sum() / n + total**2 / (n * m)
        return max(0.0, float(left / ((n - 1) * (m - 1))))


def _sums(left: np.ndarray, right: np.ndarray, kernel: Kernel, same: bool = False) -> KernelTable:
    rows, columns = np.zeros(len(left)), np.zeros(len(right))
    squares = diagonal = 0.0
    i = 0
    for a in blocks(left):
        j = i if same else 0  # a table of a set with itself is symmetric: half of it tells all
        for b in blocks(right[j:]):
            part = kernel(a, b)
            mirrored = same and j > i
            if same and i == j:
                diagonal += float(np.trace(part))
                np.fill_diagonal(part, 0)
            over_columns, over_rows = part.sum(axis=1), part.sum(axis=0)
            rows[i : i + len(a)] += over_columns
            columns[j : j + len(b)] += over_rows
            if mirrored:
                rows[j : j + len(b)] += over_rows
                columns[i : i + len(a)] += over_columns
            squares += (1 + mirrored) * float(np.vdot(part, part))
            j += len(b)
        i += len(a)
    return KernelTable(rows, columns, squares, diagonal, same)


def kernel_tables(real: np.ndarray, fake: np.ndarray, kernel: Kernel) -> tuple[KernelTable, KernelTable, KernelTable]:
    """Features (n, d) and (m, d) -> the tables of real with real, fake with fake (diagonals apart), real with fake."""
    return _sums(real, real, kernel, True), _sums(fake, fake, kernel, True), _sums(real, fake, kernel)


def discrepancy(real: np.ndarray, fake: np.ndarray, kernel: Kernel) -> Estimate:
    """Features (n, d) and (m, d) -> the unbiased squared discrepancy with its 95 % interval.

    Its variance is exact in form (Hoeffding): what comes from pairs of pictures, all that is left where both sets are
    alike and what a bootstrap would count twice; and what comes from single ones, which grows with the discrepancy
    itself. So the ends are those values that would make the one found an unlikely one (a score interval, as Wilson's is
    for shares), not the one found plus and minus its own standard error.
    """
    n, m = len(real), len(fake)
    own, other, between = kernel_tables(real, fake, kernel)
    value = own.mean + other.mean - 2 * between.mean
    crossed = between.interaction
    pairs = 4 * crossed / (n * m)
    linear = typical = 0.0
    for table, pull, k, others in (
        (own, own.row_means - between.rows / m, n, m),
        (other, other.row_means - between.columns / n, m, n),
    ):
        pairs += 2 * table.interaction / (k * (k - 1))
        # the spread of each picture's pull, less what comes from not knowing both means exactly
        linear += 4 * (float(np.var(pull, ddof=1)) - table.interaction / max(1, k - 1) - crossed / others) / k
        # what a discrepancy of 1 in no special direction would add
        typical += 4 * table.interaction / table.variance / k if table.variance else 0.0
    noise = float(np.sqrt(pairs))
    # variance per unit of discrepancy: as found, or as typical where the discrepancy drowns in noise
    slope = (max(linear, 0.0) + noise * typical) / (max(value, 0.0) + noise) if noise else 0.0
    middle = value + Z**2 * slope / 2
    half = Z * float(np.sqrt(max(0.0, pairs + slope * value + (Z * slope / 2) ** 2)))
    return Estimate(value, min(value, middle - half), max(value, middle + half))


def _cubic(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    base = left @ right.T
    base /= left.shape[1]
    base += 1
    return base * base * base  # many times faster than ** 3


def kid(real: np.ndarray, fake: np.ndarray) -> Estimate:
    """Features (n,d) and (m,d) -> the unbiased estimate over the full sets, not multiplied by 1000, with its interval.

    Raises:
        MogleError: sets of one picture, of different widths, or with NaN.
    """
    check_features(real, fake, "KID")
    return discrepancy(real, fake, _cubic)


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
    if len(first) != len(second) or min(len(first), len(real)) < 3:
        raise MogleError(
            f"KID: found {len(first)} and {len(second)} pictures and {len(real)} real ones, expected pairs, and at "
            "least three of each"
        )
    n, m = len(first), len(real)
    gained = (_sums(second, second, _cubic, True), _sums(real, second, _cubic))
    lost = (_sums(first, first, _cubic, True), _sums(real, first, _cubic))

    def whole(own: KernelTable, between: KernelTable) -> float:
        return own.mean - 2 * between.mean

    def without_samples(own: KernelTable, between: KernelTable) -> np.ndarray:
        left = (own.rows.sum() - 2 * own.rows) / ((n - 1) * (n - 2))
        return left - 2 * (between.rows.sum() - between.columns) / (m * (n - 1))

    def without_real(_: KernelTable, between: KernelTable) -> np.ndarray:
        return -2 * (between.rows.sum() - between.rows) / ((m - 1) * n)

    value = whole(*gained) - whole(*lost)
    variance = sum(
        float(np.var(part(*gained) - part(*lost))) * (count - 1)
        for part, count in ((without_samples, n), (without_real, m))
    )
    half = Z * float(np.sqrt(variance))
    return Estimate(value, value - half, value + half)


def kid_subsets(
    real: np.ndarray, fake: np.ndarray, *, size: int = 1000, subsets: int = 100, seed: int = 0
) -> np.ndarray:
    """The estimate on ``subsets`` random subsets of at most ``size`` rows each, as clean-fid does it: (subsets,).

    Their mean is the published kind of KID. Their spread tells how much one subset varies, and overstates the
    uncertainty of the full-set estimate.
    """
    check_features(real, fake, "KID")
    rng = np.random.default_rng(seed)
    size = min(size, len(real), len(fake))

    def part(rows: np.ndarray) -> np.ndarray:
        return rows[rng.choice(len(rows), size, replace=False)]

    return np.array([kid(part(real), part(fake)).value for _ in range(subsets)])


def _gaussian(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """exp(-|x - y|^2 / (2 sigma^2)) - 1 of directions; of unit vectors |x - y|^2 = 2 - 2 x.y.

    The constant drops out of the discrepancy, and expm1 keeps the digits that 1 - exp would lose.
    """
    left = left / np.linalg.norm(left, axis=1, keepdims=True).clip(min=1e-12)
    right = right / np.linalg.norm(right, axis=1, keepdims=True).clip(min=1e-12)
    return np.expm1((left @ right.T - 1) / SIGMA**2)


def cmmd(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (n, d) and (m, d) of CLIP ViT-L/14 at 336 px (or of another network) -> CMMD as published."""
    check_features(real, fake, "CMMD")
    own, other, between = kernel_tables(real, fake, _gaussian)
    # pairs of a picture with itself count, and this kernel is 0 for them
    within = own.mean * (1 - 1 / len(real)) + other.mean * (1 - 1 / len(fake))
    return SCALE * (within - 2 * between.mean)


def cmmd_estimate(real: np.ndarray, fake: np.ndarray) -> Estimate:
    """The same without the bias, which is about 20 / n on two sets of n, and with its interval."""
    check_features(real, fake, "CMMD")
    return Estimate(*(SCALE * part for part in discrepancy(real, fake, _gaussian)))
