"""The memory that resumable uploads of one process may hold together.

Other than ``Gateway.buffer`` it is taken as bytes come, a little at a time: a hundred slow clients hold what they have
sent and not a part each. Whoever finds no room puts what it holds into the store first, so nobody waits for somebody
who waits.
"""

import asyncio

from domain.errors.neighbours import StorageUnavailable

ROOM_BYTES = 48 * 1024**2
SPARE_BYTES = ROOM_BYTES // 3  # that whoever has something on its way to the store leaves to those who have not
WAIT_SECONDS = 30.0


class Room:
    def __init__(self, size: int = ROOM_BYTES) -> None:
        self._free = size
        self._given = asyncio.Event()

    def try_take(self, size: int, spare: int = 0) -> bool:
        """Whether there was room for ``size`` bytes and ``spare`` beyond them."""
        if size + spare > self._free:
            return False
        self._free -= size
        return True

    async def take(self, size: int) -> None:
        """Wait for others to give theirs back. Raises StorageUnavailable after 30 s."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not self.try_take(size):
                    self._given.clear()
                    await self._given.wait()
        except TimeoutError:
            raise StorageUnavailable(retry_after=5) from None

    def give(self, size: int) -> None:
        self._free += size
        self._given.set()
