"""Vector stores: FAISS indexes, the documents they point to, and a manifest that says what they are.

A store is a folder of segments and a `manifest.json`, written last, so that a folder without one is no store. A segment is
`index.faiss`, `documents.sqlite` (a document's rowid is its row in the index), for some indexes `vectors.faiss`, and
`deleted.rows` once some of its documents are gone; the first lies in the folder itself, those of updates and shards in
`segments/<name>/`. A store never changes once it is built: an update is another store that shares the files that stay.
Nothing in it is unpickled, and every size is checked against the manifest before a file is read.
"""

from .builder import build
from .indexes import INDEX_TYPES, Choice
from .manifest import Manifest, SegmentRecord
from .revision import Changes, update
from .rows import Document
from .store import VectorStore
from .union import combine

__all__ = ["INDEX_TYPES", "Changes", "Choice", "Document", "Manifest", "SegmentRecord", "VectorStore", "build", "combine", "update"]
