"""Asynchronous iteration: a thread of the loop's executor waits for messages."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Deque, Optional

from ._jlog import Message, Reader

# How long the executor's thread waits at a time, so that a loop that ends does not wait for it for long.
WAIT = 0.5


class Messages:
    """The messages of a reader. Cancelling a task that waits loses none."""

    def __init__(self, reader: Reader, follow: bool) -> None:
        self._reader = reader
        self._follow = follow
        self._next: Deque[Message] = deque()
        self._reading: Optional[asyncio.Future[list[Message]]] = None

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Message:
        while not self._next:
            if self._reading is None:
                loop = asyncio.get_running_loop()
                wait = WAIT if self._follow else 0.0
                self._reading = loop.run_in_executor(None, self._reader.next_batch, wait)
            # If this is cancelled, the next call finds the pending read or its result.
            messages = await asyncio.shield(self._reading)
            self._reading = None
            self._next.extend(messages)
            if not messages and not self._follow:
                raise StopAsyncIteration
        message = self._next.popleft()
        self._reader._handed_out(message)
        return message
