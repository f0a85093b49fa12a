"""Index builds: accepted by the index function, done by a job (`python -m mlaas.indexing`), repeated when a model changes."""

from .accept import accept, follow
from .job import build

__all__ = ["accept", "build", "follow"]
