"""Types of options: durations, sizes and amounts as people write them, JSON. Their bounds are the API's business."""

import re
from datetime import datetime
from typing import Any

import msgspec
import rich_click as click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([0-9]{1,12})([smhdw]?)")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([kmgt]?)(?:i?b)?", re.IGNORECASE)
_AMOUNT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


class Duration(click.ParamType[int]):
    """A duration in seconds: `90`, `15m`, `24h`, `7d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds; a usage error for anything else."""
        if isinstance(value, int):
            return value
        if match := _DURATION.fullmatch(str(value)):
            return int(match[1]) * _UNITS[match[2]]
        return self.fail("a duration is a number of seconds or such as 15m, 24h, 7d", param, ctx)


class Size(click.ParamType[int]):
    """A size in bytes: `1048576`, `512m`, `2GiB`; a unit is 1024 of the one before, as docker has it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes; a usage error for anything else."""
        if isinstance(value, int):
            return value
        if match := _SIZE.fullmatch(str(value)):
            return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
        return self.fail("a size is a number of bytes or such as 512m, 2g", param, ctx)


class Amount(click.ParamType[float]):
    """A number that is not negative: `5`, `0.25`; no other notation, for JSON knows neither infinity nor NaN."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; a usage error for anything else."""
        if isinstance(value, float):
            return value
        if _AMOUNT.fullmatch(str(value)):
            return float(value)
        return self.fail("a number is needed, such as 5 or 0.25", param, ctx)


class JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return the object; a usage error for anything else."""
        if isinstance(value, dict):
            return value
        try:
            return msgspec.json.decode(str(value), type=dict[str, Any])
        except (ValueError, RecursionError):
            return self.fail("""a JSON object is needed, such as '{"maxRenewals": 3}'""", param, ctx)


class Moment(click.ParamType[int]):
    """A moment in Unix seconds: `2026-01-31` (midnight here) or RFC 3339 (`2026-01-31T12:00:00Z`)."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds; a usage error for anything else."""
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            moment = None
        if moment is None or (moment.tzinfo is None and len(str(value)) != len("2026-01-31")):
            return self.fail("a date is written 2026-01-31, or with time and zone 2026-01-31T12:00:00Z", param, ctx)
        return int(moment.timestamp())


DURATION = Duration()
SIZE = Size()
AMOUNT = Amount()
JSON_OBJECT = JsonObject()
MOMENT = Moment()
