"""How the headers of several records become those of a round."""

import functools
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Union

from shoal.job.error import HeaderError
from shoal.job.headers import Headers, gather

Reduce = Mapping[str, Union[str, Callable[[List[Any]], Any]]]


def reduce_or(values: List[Any]) -> Any:
    """Bits that any of the values has; true if any is.

    Raises:
        TypeError: A value is neither int nor bool.
    """
    return functools.reduce(lambda one, other: one | other, values)


def reduce_and(values: List[Any]) -> Any:
    """Bits that all values have; true if all are.

    Raises:
        TypeError: A value is neither int nor bool.
    """
    return functools.reduce(lambda one, other: one & other, values)


def first(values: List[Any]) -> Any:
    """The value of the first record that has one: of the first input, in the specification's order."""
    return values[0]


def last(values: List[Any]) -> Any:
    """The value of the last record that has one."""
    return values[-1]


NAMED: Dict[str, Callable[[List[Any]], Any]] = {
    "or": reduce_or,
    "and": reduce_and,
    "min": min,
    "max": max,
    "sum": sum,
    "first": first,
    "last": last,
}


class Reducers:
    """A function by header name; headers without one are OR-ed if they are int or bool.

    Args:
        named: `or`, `and`, `min`, `max`, `sum`, `first`, `last`, or a function of a list of values.

    Raises:
        HeaderError: There is no such reducer.
    """

    def __init__(self, named: Optional[Reduce] = None) -> None:
        self._functions: Dict[str, Callable[[List[Any]], Any]] = {}
        for name, wanted in (named or {}).items():
            function = NAMED.get(wanted) if isinstance(wanted, str) else wanted
            if function is None or not callable(function):
                raise HeaderError(
                    "header {!r} has the reducer {!r}: use one of {}, or a function of a list of "
                    "values".format(name, wanted, ", ".join(sorted(NAMED)))
                )
            self._functions[name] = function

    def merge(self, headers: Iterable[Mapping[str, Any]]) -> Headers:
        """One map of several; a name that only some of them have is reduced over those.

        Raises:
            HeaderError: A reducer does not take the values.
        """
        merged: Headers = {}
        for name, values in gather(headers).items():
            function = self._functions.get(name)
            if function is None:
                bits = all(isinstance(value, int) for value in values)
                merged[name] = reduce_or(values) if bits else values[0]
                continue
            try:
                merged[name] = function(values)
            except (TypeError, ValueError) as error:
                raise HeaderError(
                    "header {!r} has the values {!r}, which its reducer does not take: {}".format(
                        name, values, error
                    )
                ) from error
        return merged
