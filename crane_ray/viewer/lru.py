"""A bounded memory of bytes: what was not used for longest goes first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable


class BytesCache:
    """Encoded pictures by key; safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def num_bytes(self) -> int:
        """Bytes held now; at most those allowed."""
        return self._bytes

    def get(self, key: Hashable) -> bytes | None:
        """The bytes of a key, which count as used now; None where there are none."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def put(self, key: Hashable, data: bytes) -> None:
        """Remembers bytes; those that exceed the whole memory are not held."""
        with self._lock:
            self._bytes += len(data) - len(self._held.pop(key, b""))
            self._held[key] = data
            while self._bytes > self._max_bytes:
                _, dropped = self._held.popitem(last=False)
                self._bytes -= len(dropped)
