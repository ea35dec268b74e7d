"""The hours that market files carry, and options that no market can have."""

import pytest

from jaxexec.calibration import stated_market
from jaxexec.cli import markets
from jaxexec.storage import FileError


def files(folder, *sessions):
    paths = []
    for i, session in enumerate(sessions):
        paths.append(folder / f"{i}.toml")
        paths[-1].write_text(f'session = "{session}"\n')
    return paths


def test_hours_come_from_the_market_files(tmp_path):
    assert markets.session_of(files(tmp_path, "14:30:00-21:00:00", ""), None) == "14:30:00-21:00:00"
    assert markets.session_of([], None) == "09:30-16:00"
    assert markets.session_of([], "10:00-15:00") == "10:00-15:00"
    assert markets.session_of(files(tmp_path, "09:30:00-16:00:00"), "09:30-16:00") == "09:30-16:00"


def test_hours_that_disagree_are_refused(tmp_path):
    with pytest.raises(FileError, match="14:30:00-21:00:00, not 09:30-16:00"):
        markets.session_of(files(tmp_path, "14:30:00-21:00:00"), "09:30-16:00")
    with pytest.raises(FileError, match=r"1\.toml"):
        markets.session_of(files(tmp_path, "14:30:00-21:00:00", "09:30:00-16:00:00"), None)


@pytest.mark.parametrize(
    "option",
    [
        {"volatility": -1.0},
        {"volume": 0.0},
        {"eta": float("nan")},
        {"phi": 0.0},
        {"psi": -0.1},
        {"permanent_impact": -1.0},
    ],
)
def test_impossible_options_are_refused(option):
    name = next(iter(option)).replace("_", "-")
    with pytest.raises(ValueError, match=f"--{name} must be finite"):
        markets.check_assumed(markets.Assumed(**option))


def test_a_market_file_is_of_one_trading_day(tmp_path):
    path = tmp_path / "m.toml"
    text = stated_market(0.5, 1e6, eta=0.1).to_toml()
    path.write_text(text)
    assert list(markets.read_markets([path])) == [""]
    path.write_text(text.replace("times = [0.0, 1.0]", "times = [0.0, 2.0]"))
    with pytest.raises(FileError, match=r"grid.times must run from 0 to 1"):
        markets.read_markets([path])
