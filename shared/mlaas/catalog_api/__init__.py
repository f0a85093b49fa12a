"""The catalog over HTTP: REST under /v1 with an OpenAPI description, and what it does with events."""

from .events import accept, count
from .routes import Routes

__all__ = ["Routes", "accept", "count"]
