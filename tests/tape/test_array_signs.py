from fractions import Fraction

import numpy as np
import pytest

from jaxexec import tape
from jaxexec.tape import array_signs
from jaxexec.tape.errors import InputError
from tests.tape.test_signing import RULES, rational_sign


def one_by_one(rule, ticks, bid, ask, first):
    out, last = [], 0
    for i in range(len(ticks)):
        if first[i] or i == 0:
            last = 0
        elif ticks[i] != ticks[i - 1]:
            last = 1 if ticks[i] > ticks[i - 1] else -1
        book = Fraction(int(ticks[i])), Fraction(int(bid[i])), Fraction(int(ask[i]))
        out.append(last if rule == "tick" else rational_sign(rule, *book, last))
    return out


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
@pytest.mark.parametrize("block", [1, 3, 7, 1 << 17])
def test_signs_equal_rational_arithmetic_wherever_blocks_end(monkeypatch, rule, dtype, block):
    monkeypatch.setattr(array_signs, "BLOCK", block)
    draw = np.random.default_rng(block)
    for length in (1, 2, 50):
        bid = draw.integers(100, 108, length)
        ask = bid + draw.integers(1, 12, length)
        ticks = 100 + np.cumsum(draw.integers(-1, 2, length) * (draw.random(length) < 0.5))
        first = draw.random(length) < 0.1
        found = tape.sign_arrays(*(x.astype(dtype) for x in (ticks, bid, ask)), first=first, rule=rule)
        assert found.tolist() == one_by_one(rule, ticks, bid, ask, first)
        assert found.dtype == np.int8


def test_long_runs_without_a_change():
    ticks = np.r_[10, 11, np.full(5000, 11), 9, np.full(3000, 9)]
    found = tape.sign_arrays(ticks, ticks - 1, ticks + 1, rule="tick")
    assert (found[:1] == 0).all() and (found[1:5002] == 1).all() and (found[5002:] == -1).all()


def test_large_prices_of_32_bits_do_not_overflow():
    ticks = np.array([2**31 - 5, 2**31 - 3], np.int32)
    assert tape.sign_arrays(ticks, ticks - 3, ticks + 1, rule="clnv").tolist() == [1, 1]


def test_no_trades():
    none = np.zeros(0, int)
    assert tape.sign_arrays(none, none, none).shape == (0,)


def test_bad_input_names_field_and_row():
    good = np.array([3, 4, 5])
    for changed, words in (
        ({"ticks": good * 1.5}, "ticks: must be integers"),
        ({"bid": good[:2]}, r"bid: must have shape \(3,\)"),
        ({"ask": np.array([3, 4, 2**60])}, "ask, row 2"),
        ({"bid": np.array([3, 2**64 - 1, 4], np.uint64)}, "bid, row 1"),
        ({"ticks": np.array(3)}, r"ticks: must have shape \(trades,\)"),
        ({"first": np.zeros(2, bool)}, r"first: must have shape \(3,\)"),
    ):
        with pytest.raises(InputError, match=words):
            tape.sign_arrays(**{"ticks": good, "bid": good - 1, "ask": good + 1} | changed)
    with pytest.raises(ValueError, match="lee-ready"):
        tape.sign_arrays(good, good, good, rule="midpoint")
