"""How long to wait before trying again."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter, as plain numbers: it neither waits nor draws lots.

    The ceiling of a delay grows by `factor` with each failure up to `maximum_seconds`. Of that
    ceiling the share `jitter` is left to chance, so that many callers that failed together do not
    come back together; 1.0 is "full jitter", 0.0 is none (Brooker, Exponential Backoff And Jitter,
    AWS Architecture Blog, 2015).

    Raises:
        ValueError: for a policy that would never wait, or shrink.
    """

    initial_seconds: float
    maximum_seconds: float
    factor: float = 2.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.initial_seconds <= self.maximum_seconds:
            raise ValueError(
                f"initial_seconds is {self.initial_seconds} and maximum_seconds is "
                f"{self.maximum_seconds}; it has to be 0 < initial_seconds <= maximum_seconds"
            )
        if self.factor < 1:
            raise ValueError(f"factor is {self.factor}; it has to be at least 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is {self.jitter}; it has to be from 0 to 1")

    def delay_seconds(self, failures: int, chance: float) -> float:
        """Return how long to wait after the given number of failures in a row.

        Args:
            failures: 1 after the first failure; 0 or less waits not at all.
            chance: a number drawn from [0, 1) by the caller, which owns the randomness.
        """
        if failures <= 0:
            return 0.0
        try:
            ceiling = min(
                self.maximum_seconds, self.initial_seconds * self.factor ** (failures - 1)
            )
        except OverflowError:  # after a thousand failures the power does not fit a float
            ceiling = self.maximum_seconds
        return ceiling * (1 - self.jitter * (1 - chance))
