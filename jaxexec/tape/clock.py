"""Dates and times of day: whatever a vendor writes becomes a local date and nanoseconds since midnight."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

from jaxexec.tape.errors import FilePath, InputError

if TYPE_CHECKING:
    import polars as pl

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND, "min": 60 * SECOND, "h": 3_600 * SECOND}
_COLONS = r"^(?<h>\d{1,2}):(?<m>[0-5]\d):(?<s>[0-5]\d|60)(?:\.(?<f>\d{1,9}))?$"
_DIGITS = r"^(?<h>\d{2})(?<m>[0-5]\d)(?<s>[0-5]\d|60)(?<f>\d{0,9})$"
_UNIVERSAL = ("UTC", "Etc/UTC", "GMT", "Etc/GMT", "Zulu")


def nanoseconds(duration: str | int | datetime.timedelta, field: str = "lag") -> int:
    """A duration in nanoseconds: "0s", "5ms", "1.5min", a `timedelta`, or an integer of nanoseconds.

    Raises:
        InputError: the text is no duration, or the duration is negative.
    """
    if isinstance(duration, datetime.timedelta):
        value = round(duration / datetime.timedelta(microseconds=1)) * 1_000
    elif isinstance(duration, str):
        match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ns|us|ms|s|min|h)\s*", duration)
        if match is None:
            raise InputError(field, f"{duration!r} is no duration such as '0s', '5ms' or '1.5min'")
        value = round(float(match[1]) * _UNITS[match[2]])
    else:
        value = int(duration)
    if value < 0:
        raise InputError(field, "a duration must not be negative")
    return value


def time_of_day(value: str | int | datetime.time, field: str = "session") -> int:
    """Nanoseconds since midnight of "09:30", "16:00:00.5", a `datetime.time` or an integer of nanoseconds.

    Raises:
        InputError: the text is no time of day.
    """
    if isinstance(value, int):
        return value
    if isinstance(value, datetime.time):
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return seconds * SECOND + value.microsecond * 1_000
    match = re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?", value.strip())
    if match is None or int(match[1]) > 24 or int(match[2]) > 59:
        raise InputError(field, f"{value!r} is no time of day such as '09:30' or '16:00:00'")
    seconds = (int(match[1]) * 60 + int(match[2])) * 60 + int(match[3] or 0)
    return seconds * SECOND + int((match[4] or "").ljust(9, "0"))


def clock_text(time: int) -> str:
    """ "14:30:00" for nanoseconds since midnight; a fraction is shown only where there is one."""
    seconds, fraction = divmod(time, SECOND)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return text + (f".{fraction:09d}" if fraction else "")


def local_dates_and_times(
    frame: pl.DataFrame,
    timezone: str | None = None,
    naive_timezone: str | None = None,
    path: FilePath = None,
) -> tuple[pl.Series, pl.Series]:
    """Local dates and nanoseconds since local midnight.

    Args:
        frame: columns `time` and, where times do not carry their date, `date`. Times may be times of day
            (`Time`, `Duration`, text "HH:MM:SS.f" or "HHMMSSf", integer nanoseconds or float seconds since
            midnight) or points in time (`Datetime`, text, or, without a date column, integer nanoseconds
            since the epoch in UTC).
        timezone: the exchange's zone, such as "America/New_York". Points in time that carry a zone are
            converted to it; naive ones are taken to be local already.
        naive_timezone: the zone in which naive times were written; they are converted to `timezone`.
        path: named in errors.

    Returns:
        `date` (pl.Date) and `time` (pl.Int64), null where the input is null.

    Raises:
        InputError: text that is no date or time (naming the row), a universal time without `timezone`, a
            time of day without a date.
    """
    import polars as pl

    if naive_timezone is not None and timezone is None:
        raise InputError("timezone", "naive_timezone needs timezone, the exchange's own zone, to convert to")
    stamps = _points_in_time(frame, path)
    if stamps is None:
        dates, times = _dates(frame, path), _times_of_day(frame["time"], path)
        if naive_timezone is None:
            return dates, times
        midnights = dates.cast(pl.Datetime("ns")).cast(pl.Int64)
        stamps = (midnights + times).cast(pl.Datetime("ns"))
    return _split(_localise(stamps, timezone, naive_timezone, path))


def _points_in_time(frame: pl.DataFrame, path: FilePath) -> pl.Series | None:
    """Times that carry their own date, or None where the times are times of day."""
    import polars as pl

    time, has_date = frame["time"], "date" in frame.columns
    if isinstance(time.dtype, pl.Datetime):
        return time.cast(pl.Datetime("ns", time.dtype.time_zone))
    if has_date:
        return None
    if time.dtype.is_integer():
        return time.cast(pl.Int64).cast(pl.Datetime("ns", "UTC"))
    if time.dtype == pl.String:
        text = time.str.strip_chars().str.replace("T", " ", literal=True).str.replace(r"(Z|\+00:?00)$", "")
        zone = "UTC" if bool(time.str.contains(r"(Z|\+00:?00)\s*$").any()) else None
        parsed = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False)
        _require_parsed(time, parsed, "time", path)
        return parsed.dt.replace_time_zone(zone)
    raise InputError(
        "date", "times of day need a date column: say which with columns={'date': ...}, or date=", path=path
    )


def _localise(stamps: pl.Series, timezone: str | None, naive_timezone: str | None, path: FilePath) -> pl.Series:
    import polars as pl

    zone = getattr(stamps.dtype, "time_zone", None)
    if zone is None and naive_timezone is None:
        return stamps
    if timezone is None and zone in _UNIVERSAL:
        raise InputError(
            "timezone",
            f"times are in {zone}: say where the exchange is, timezone='America/New_York'",
            path=path,
        )
    try:
        zoned = stamps if zone is not None else stamps.dt.replace_time_zone(naive_timezone)
        return (zoned if timezone is None else zoned.dt.convert_time_zone(timezone)).dt.replace_time_zone(None)
    except pl.exceptions.PolarsError as error:
        raise InputError("timezone", f"{error}", path=path) from error


def _split(stamps: pl.Series) -> tuple[pl.Series, pl.Series]:
    import polars as pl

    dates = stamps.dt.date()
    return dates, stamps.cast(pl.Int64) - dates.cast(pl.Datetime("ns")).cast(pl.Int64)


def _dates(frame: pl.DataFrame, path: FilePath) -> pl.Series:
    import polars as pl

    dates = frame["date"]
    if dates.dtype == pl.Date:
        return dates
    if isinstance(dates.dtype, pl.Datetime):
        return dates.dt.date()
    text = dates.cast(pl.String).str.strip_chars()
    parsed = pl.select(
        pl.coalesce([text.str.to_date(form, strict=False) for form in ("%Y-%m-%d", "%Y%m%d", "%d%b%Y")])
    ).to_series()
    _require_parsed(text, parsed, "date", path)
    return parsed


def _times_of_day(time: pl.Series, path: FilePath) -> pl.Series:
    import polars as pl

    if time.dtype == pl.Time:
        return time.cast(pl.Int64)
    if isinstance(time.dtype, pl.Duration):
        return time.dt.total_nanoseconds()
    if time.dtype.is_integer():
        return time.cast(pl.Int64)
    if time.dtype.is_float():
        return (time.fill_nan(None) * SECOND).round().cast(pl.Int64, strict=False)
    if time.dtype != pl.String:
        raise InputError("time", f"a column of type {time.dtype} holds no times", path=path)
    parts = [time.str.strip_chars().str.extract_groups(form).struct for form in (_COLONS, _DIGITS)]
    hours, minutes, seconds, fraction = (
        pl.select(pl.coalesce([part.field(name) for part in parts])).to_series() for name in "hmsf"
    )
    whole = (hours.cast(pl.Int64) * 60 + minutes.cast(pl.Int64)) * 60 + seconds.cast(pl.Int64)
    parsed = whole * SECOND + fraction.fill_null("").str.pad_end(9, "0").cast(pl.Int64)
    _require_parsed(time, parsed, "time", path)
    return parsed


def _require_parsed(raw: pl.Series, parsed: pl.Series, field: str, path: FilePath) -> None:
    bad = (raw.is_not_null() & (raw.str.strip_chars() != "") & parsed.is_null()).fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(field, f"{raw[row]!r} is not understood", index=row, path=path)
