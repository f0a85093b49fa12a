"""Records that kafka-python cannot decode, and that would stop the reader of their partition for good."""

from __future__ import annotations

from typing import Any

__all__ = ["tolerate_odd_headers"]


class _Lenient(bytearray):
    """Bytes whose parts are decoded as other clients of Kafka do it: what is no UTF-8 is replaced."""

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _Lenient(part) if isinstance(place, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, "replace")


def tolerate_odd_headers() -> None:
    """Have kafka-python read a record with a header whose name is no UTF-8, where it would raise at every poll.

    Kafka itself takes any bytes as a header's name, so that one such record would hold up a partition for ever.
    """
    from kafka.record import default_records

    batch = default_records.DefaultRecordBatch
    strict = batch._read_msg
    if getattr(strict, "is_lenient", False):
        return

    def read(self: Any, *arguments: Any, **options: Any) -> Any:
        place = self._pos
        try:
            return strict(self, *arguments, **options)
        except UnicodeDecodeError:
            self._pos, self._buffer = place, _Lenient(self._buffer)
            return strict(self, *arguments, **options)

    read.is_lenient = True  # type: ignore[attr-defined]
    batch._read_msg = read
