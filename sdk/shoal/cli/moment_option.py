"""`--since` and `--until`: a moment, as a time or as how long ago it was."""

from datetime import UTC, datetime, time, timedelta

import click

from shoal.specfile.units import parse_duration


def moment(text: str) -> datetime:
    """Read `5m`, `15:03`, `2026-11-29T15:03:20` or the same with a time zone; without one it is ours.

    A time alone is the last one of that clock time.

    Raises:
        click.BadParameter: it is none of these, or has not come yet.
    """
    return moment_before(text, datetime.now(UTC).astimezone())


def moment_before(text: str, now: datetime) -> datetime:
    """Read a moment that lies before `now`, an aware one.

    Raises:
        click.BadParameter: it is none, or has not come yet.
    """
    try:
        return now - timedelta(seconds=parse_duration(text))
    except ValueError:
        pass
    try:
        clock = time.fromisoformat(text)
    except ValueError:
        pass
    else:
        found = datetime.combine(now.date(), clock, clock.tzinfo or now.tzinfo)
        return found if found <= now else found - timedelta(days=1)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no moment; write how long ago it was, as 5m, or a time, as 15:03 or "
            "2026-11-29T15:03:20"
        ) from None
    if found.year < 1970:  # there are zones in which the first and the last years have no time
        raise click.BadParameter(f"{text!r} is before 1970; write a later moment, as 5m")
    if found.year > now.year + 1:
        raise click.BadParameter(f"{text!r} has not come yet; write a moment before now, as 5m")
    found = found.astimezone() if found.tzinfo is None else found
    if found > now:
        raise click.BadParameter(f"{text!r} has not come yet; write a moment before now, as 5m")
    if found.timestamp() < 0:
        raise click.BadParameter(f"{text!r} is before 1970; write a later moment, as 5m")
    return found
