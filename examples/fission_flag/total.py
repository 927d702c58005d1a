"""Adds up what comes, and raises a flag once the sum has reached LIMIT."""

import os

from shoal import job

LIMIT = int(os.environ.get("LIMIT", "10"))


class Total:
    """Keeps the sum, so a replacement gets every number again (`recovery: restart`, the default)."""

    def setup(self) -> None:
        """Begin with nothing."""
        self.sum = 0

    def run(self, numbers: int) -> list[object]:
        """Send the sum so far, and whether it is enough."""
        self.sum += numbers
        return [self.sum, self.sum >= LIMIT]


if __name__ == "__main__":
    job.run(Total)
