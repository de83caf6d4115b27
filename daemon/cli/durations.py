"""Durations as people write them: seconds, or a number with s, m, h, d or w."""

import re
from typing import Any

import rich_click as click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([0-9]{1,12})([smhdw]?)")


class Duration(click.ParamType):
    """A duration in seconds; `90`, `15m`, `24h`, `7d`. Its bounds are the API's business."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds; a usage error for anything else."""
        if isinstance(value, int):
            return value
        if match := _DURATION.fullmatch(str(value)):
            return int(match[1]) * _UNITS[match[2] or "s"]
        return self.fail("a duration is a number of seconds or such as 15m, 24h, 7d", param, ctx)


DURATION = Duration()
