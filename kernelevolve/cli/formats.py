"""How numbers are written, everywhere the same."""

from datetime import UTC, datetime

from kernelevolve.schema import Passed


def microseconds(value: float) -> str:
    """Three to four digits, without an exponent."""
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def times(value: float) -> str:
    """A speed-up."""
    return f"{value:.2f}x"


def interval(low: float, high: float) -> str:
    """Both ends of an interval."""
    return f"[{low:.2f}, {high:.2f}]"


def speedup(passed: Passed) -> str:
    """The geometric mean over the workloads, with its interval."""
    return f"{times(passed.speedup)} {interval(*passed.interval)}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as far as they are needed."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def moment(iso: str) -> str:
    """A time stamp of a record, to the minute."""
    return f"{datetime.fromisoformat(iso).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def share(value: float | None) -> str:
    """A part of the whole, in per cent; nothing for None."""
    return "" if value is None else f"{100 * value:.0f} %"
