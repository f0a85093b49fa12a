"""Asking the platform's functions as any client does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import Unavailable
from ..settings import Settings

if TYPE_CHECKING:
    from ..client import Answer

__all__ = ["ask"]

SECONDS = 60.0


def ask(settings: Settings, capability: str, request: Mapping[str, Any], *, key: str | None = None) -> Answer:
    """A function's answer; the same `key` starts nothing a second time. Raises what the function refuses, and Unavailable."""
    from ..client import Client, Defect  # not in the catalog's cold start

    with Client(settings.url, timeout=SECONDS, settings=settings) as client:
        try:
            return client.ask(capability, request, idempotency_key=key)
        except Defect as error:
            raise Unavailable(error.detail, remedy=error.remedy) from None
