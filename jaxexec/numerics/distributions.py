"""Distribution functions in float64 on NumPy arrays; lower tails keep their digits, F(x) = 1 − F(−x) for x > 0."""

import math
from collections.abc import Callable

import numpy as np

_STEPS = 200
_TINY = 1e-300


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Φ(x), float64, of the shape of x."""
    x = np.asarray(x, np.float64)
    tail = np.fromiter((0.5 * math.erfc(abs(v) / math.sqrt(2.0)) for v in x.ravel().tolist()), np.float64, x.size)
    return _from_tail(x, tail.reshape(x.shape))


def student_cdf(x: np.ndarray, degrees_of_freedom: float) -> np.ndarray:
    """Student's distribution function, float64, of the shape of x.

    With w = ν/(ν + x²), 1 − F(|x|) = ½ I_w(ν/2, ½), I the regularised incomplete beta function.
    """
    x = np.asarray(x, np.float64)
    half = degrees_of_freedom / 2
    # By the hypotenuse, since x² may overflow or vanish.
    length = np.hypot(np.sqrt(degrees_of_freedom), x)
    with np.errstate(invalid="ignore"):
        w, rest = degrees_of_freedom / length / length, np.where(np.isinf(x), 1.0, (x / length) ** 2)
        tail = 0.5 * _incomplete_beta(half, 0.5, w, rest)
    return _from_tail(x, np.where(np.isnan(x), np.nan, tail))


def student_quantile(probability: float, degrees_of_freedom: float) -> float:
    """x with F(x) = `probability`, strictly between 0 and 1."""
    if probability < 0.5:
        return -student_quantile(1 - probability, degrees_of_freedom)
    return _increasing_root(lambda x: float(student_cdf(np.array(x), degrees_of_freedom)), probability)


def f_cdf(x: np.ndarray, first: float, second: float) -> np.ndarray:
    """Fisher's distribution function of the ratio of two mean squares, float64, of the shape of x ≥ 0.

    I_w(m/2, n/2) with w = mx/(mx + n), m and n the `first` and `second` degrees of freedom.
    """
    x = np.asarray(x, np.float64)
    whole = first * x + second
    return _incomplete_beta(first / 2, second / 2, first * x / whole, second / whole)


def f_quantile(probability: float, first: float, second: float) -> float:
    """x with `f_cdf(x)` = `probability`, strictly between 0 and 1."""
    return _increasing_root(lambda x: float(f_cdf(np.array(x), first, second)), probability)


def _increasing_root(function: Callable[[float], float], target: float) -> float:
    """x ≥ 0 at which an increasing function reaches `target`, by bisection to rounding."""
    low, high = 0.0, 1.0
    while function(high) < target:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return middle
        low, high = (middle, high) if function(middle) < target else (low, middle)


def _from_tail(x: np.ndarray, tail: np.ndarray) -> np.ndarray:
    return np.where(x > 0, 1.0 - tail, tail)


def _incomplete_beta(a: float, b: float, x: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """I_x(a, b) with rest = 1 − x, of which each is exact where it is small."""
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) * x**a * rest**b
    direct = x < (a + 1) / (a + b + 2)
    first = front / a / _fraction(a, b, np.where(direct, x, 0.0))
    second = front / b / _fraction(b, a, np.where(direct, 0.0, rest))
    return np.where(direct, first, 1.0 - second)


def _fraction(a: float, b: float, x: np.ndarray) -> np.ndarray:
    """The continued fraction of DLMF 8.17.22, by the modified method of Lentz."""
    c, value = np.ones_like(x), np.ones_like(x)
    d = np.zeros_like(x)
    for step in range(1, _STEPS + 1):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 + term * d
        d = 1.0 / np.where(np.abs(d) < _TINY, _TINY, d)
        c = 1.0 + term / np.where(np.abs(c) < _TINY, _TINY, c)
        value = value * c * d
        if np.all(np.abs(c * d - 1.0) < 1e-16):
            break
    return value
