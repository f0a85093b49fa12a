"""Files on their way to the platform's exchange."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from .. import datasets, progress_bars, references, storage
from ..errors import InvalidRequest
from ..settings import Settings
from ..storage.manifests import sha256_of

__all__ = ["as_table", "upload"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def as_table(file: str, column: str, folder: Path) -> Path:
    """The file itself if it is a data set; the lines of a .txt file or of standard input (`-`) as a JSONL file in `folder`."""
    path = Path(file)
    if file != "-" and not path.is_file():
        raise InvalidRequest(f"there is no file {file}", field="--file", remedy="Name a file on this machine, local:PATH or s3:BUCKET/KEY.")
    if file != "-" and path.suffix.lower() != ".txt":
        if not path.name.lower().endswith(datasets.EXTENSIONS):
            raise InvalidRequest(
                f"{path.name}: not a known kind of file", field="--file", remedy=f"It must end in {', '.join(datasets.EXTENSIONS)} or .txt."
            )
        return path
    table = folder / f"{'stdin' if file == '-' else path.stem}.jsonl"
    try:
        with sys.stdin if file == "-" else path.open(encoding="utf-8-sig") as lines, table.open("w", encoding="utf-8") as rows:
            rows.writelines(json.dumps({column: line.rstrip("\r\n")}, ensure_ascii=False) + "\n" for line in lines)
    except UnicodeError:
        raise InvalidRequest(f"{path.name}: it is not UTF-8", field="--file", remedy="Save the file as UTF-8.") from None
    return table


def upload(file: Path, settings: Settings, as_json: bool) -> dict[str, Any]:
    """Put `file` into the exchange unless its content is there already; the reference to it."""
    digest = sha256_of(file)
    path, storage_type = references.in_exchange(settings, "uploads", digest[:16], _UNSAFE.sub("_", file.name))
    if not storage.exists(path, storage_type, settings=settings):
        with progress_bars.transfer(f"sending {file.name}", disable=as_json) as progress:
            storage.put(file, path, storage_type, settings=settings, progress=progress)
    return {"path": path, "storage_type": storage_type, "size": file.stat().st_size, "sha256": digest}
