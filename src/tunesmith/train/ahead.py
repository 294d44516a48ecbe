"""Batches that are made on a thread of their own while the network is busy with those before: decoding and varying images is
off the path of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from tunesmith.contracts import Batch, Collate, Indices

MOST = 2
"""Batches that may wait for the network."""


class Ahead:
    """Makes batches as `collate` does. What a batch holds is drawn by its rows alone, so that it does not matter when."""

    def __init__(self, collate: Collate, threads: ThreadPoolExecutor) -> None:
        self.collate, self.threads = collate, threads
        self._made: deque[tuple[bytes, Future[Batch]]] = deque()
        self._to_come: deque[Indices] = deque()

    def expect(self, parts: Sequence[Indices]) -> None:
        """Say which batches will be asked for next, in this order; others that were expected are forgotten."""
        keys = [part.tobytes() for part in parts]
        if [key for key, _ in self._made] != keys[: len(self._made)]:
            self.forget()
        self._to_come = deque(parts[len(self._made) :])
        self._make()

    def __call__(self, indices: Indices) -> Batch:
        if not self._made or self._made[0][0] != indices.tobytes():
            return self.collate(indices)  # asked for once more, or cut otherwise than was expected
        _, found = self._made.popleft()
        self._make()
        return found.result()

    def forget(self) -> None:
        """Let go of what was made or is about to be."""
        for _, one in self._made:
            one.cancel()
        self._made.clear()
        self._to_come.clear()

    def _make(self) -> None:
        while self._to_come and len(self._made) < MOST:
            part = self._to_come.popleft()
            self._made.append((part.tobytes(), self.threads.submit(self.collate, part)))


@contextmanager
def ahead(collate: Collate) -> Iterator[Ahead]:
    """`collate` with a thread, which ends with the context."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as threads:
        found = Ahead(collate, threads)
        try:
            yield found
        finally:
            found.forget()
