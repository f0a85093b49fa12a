"""The body of an upload, streamed to the disk."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from ..errors import InvalidRequest, TooLarge

__all__ = ["receive"]

_PIECE = 1024**2


def receive(stream: IO[bytes], file: Path, limit: int, refusal: TooLarge | None = None, *, length: int | None = None) -> None:
    """Write what is sent, of `length` bytes if that is known, to the new file `file`.

    Raises `refusal`, or TooLarge, beyond `limit` bytes, before any is read where their number is known; InvalidRequest for none at all.
    """
    refusal = refusal or _too_large(limit)
    if (length or 0) > limit:
        raise refusal
    left = limit
    with file.open("xb") as out:
        while piece := stream.read(min(_PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                raise refusal
            out.write(piece)
    if left == limit:
        raise InvalidRequest("the body is empty", field="$", remedy="Send the file itself as the body.")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the upload is larger than {limit} bytes", field="$", remedy="Raise MLAAS_UPLOAD_BYTES, or use the storage directly.")
