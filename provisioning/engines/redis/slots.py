"""Key to hash slot: CRC16 (XMODEM) of the key, as in the Redis Cluster specification on redis.io."""

from __future__ import annotations

from binascii import crc_hqx


def slot_of(key: str) -> int:
    """The hash slot, 0 to 16383; of the part in the first {…} when there is one."""
    start = key.find("{")
    end = key.find("}", start + 1)
    tagged = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    return crc_hqx(tagged.encode(), 0) % 16384
