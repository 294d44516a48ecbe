"""A function over a long sequence, by several threads, with the results in order and only a few of them in memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")
AHEAD = 4
"""Results a thread that may wait for the reader."""


def ordered(function: Callable[[Given], Found], items: Iterable[Given], workers: int) -> Iterator[Found]:
    """`map(function, items)`; what `function` raises comes out where its result would have."""
    if workers < 2:
        yield from map(function, items)
        return
    left = iter(items)
    with ThreadPoolExecutor(workers) as threads:
        waiting: deque[Future[Found]] = deque(
            threads.submit(function, item) for item in itertools.islice(left, AHEAD * workers)
        )
        while waiting:
            found = waiting.popleft().result()
            for item in itertools.islice(left, 1):
                waiting.append(threads.submit(function, item))
            yield found
