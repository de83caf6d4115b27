"""How urgently the owner is told."""

from typing import Literal, get_args

Level = Literal["INFO", "WARNING", "CRITICAL"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""From the least to the most urgent."""
