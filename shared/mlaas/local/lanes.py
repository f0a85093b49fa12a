"""The threads of a Subscription: as Knative does it, some for all of its partitions, or, where order counts, one for each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Lanes"]

T = TypeVar("T")


class Lanes:
    """Runs calls: up to `workers` at once; or those of one lane one after the other, in the order in which they were submitted."""

    def __init__(self, workers: int, *, ordered: bool) -> None:
        self._workers, self._ordered = workers, ordered
        self._pools: dict[Any, ThreadPoolExecutor] = {}
        self.ended = threading.Event()  # set when what still runs must not begin anything further

    def submit(self, lane: Any, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run `call` as soon as its lane allows."""
        lane, threads = (lane, 1) if self._ordered else (None, self._workers)
        if lane not in self._pools:
            self._pools[lane] = ThreadPoolExecutor(threads)
        return self._pools[lane].submit(call, *arguments)

    def close(self) -> None:
        """Begin nothing further; what runs ends by itself."""
        self.ended.set()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
