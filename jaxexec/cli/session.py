"""The hours of a trading day, and times as orders write them."""

import dataclasses
import datetime
import zoneinfo


@dataclasses.dataclass(frozen=True)
class Session:
    """The hours of a trading day, in which time is counted: 0 at the open, 1 at the close.

    Attributes:
        open: Seconds after midnight.
        close: Seconds after midnight.
        timezone: The exchange's time zone, for times that carry one; None where they must not.
    """

    open: float = 34_200.0
    close: float = 57_600.0
    timezone: zoneinfo.ZoneInfo | None = None

    @classmethod
    def parse(cls, hours: str, timezone: str | None) -> "Session":
        """A session from text such as 09:30-16:00.

        Raises:
            ValueError: The text is no pair of increasing times, or the time zone is not known.
        """
        try:
            first, last = (_clock(datetime.time.fromisoformat(part.strip())) for part in hours.split("-"))
        except ValueError as error:
            raise ValueError(f"session {hours!r} is not of the form 09:30-16:00") from error
        if first >= last:
            raise ValueError(f"session {hours!r} does not end after it begins")
        try:
            return cls(first, last, None if timezone is None else zoneinfo.ZoneInfo(timezone))
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"timezone {timezone!r} is not known: name it as in America/New_York") from error

    def fraction(self, text: str) -> float:
        """A time as a fraction of the session: a number of trading days, a clock time or a date and time.

        Raises:
            ValueError: It is none of these, or outside the session.
        """
        try:
            days = float(text)
        except ValueError:
            days = (_seconds(text, self.timezone) - self.open) / (self.close - self.open)
        if not 0 <= days <= 1:
            raise ValueError(f"{text!r} is outside the session")
        return days


def _seconds(text: str, timezone: zoneinfo.ZoneInfo | None) -> float:
    """Seconds after local midnight, from a clock time, an ISO date and time, or FIX's YYYYMMDD-HH:MM:SS in UTC."""
    fix = len(text) >= 17 and text[8] == "-" and text[:8].isdigit()
    iso = f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[9:]}+00:00" if fix else text
    try:
        moment = datetime.datetime.fromisoformat(iso) if "T" in iso or " " in iso else None
        clock = datetime.time.fromisoformat(iso) if moment is None else moment.time()
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a time") from None
    if moment is not None and moment.tzinfo is not None:
        if timezone is None:
            raise ValueError(f"{text[:40]!r} has a time zone: give the exchange's with --timezone")
        clock = moment.astimezone(timezone).time()
    return _clock(clock)


def _clock(time: datetime.time) -> float:
    return time.hour * 3600 + time.minute * 60 + time.second + time.microsecond / 1e6
