"""How often something was granted, and for which reasons it was refused."""

from daemon.domain.errors import DaemonError, ErrorKind

OK = "ok"


class Results:
    """Counts ends, by the code of the refusal or `ok`: as many numbers as there are codes, whoever asks.

    Args:
        refusals: that are to be expected; they are shown from the beginning, so that the first one is seen to be new.
    """

    def __init__(self, *refusals: ErrorKind) -> None:
        self.counts = dict.fromkeys((OK, *(kind.code for kind in refusals)), 0)

    def granted(self) -> None:
        """Count what was granted."""
        self.counts[OK] += 1

    def refused(self, refusal: DaemonError) -> None:
        """Count what was refused."""
        self.counts[refusal.code] = self.counts.get(refusal.code, 0) + 1
