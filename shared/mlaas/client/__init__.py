"""The SDK: `Client` and `AsyncClient` for the platform by HTTP or by Kafka, and `EventClient` for Kafka itself."""

from .async_client import AsyncClient
from .client import Client
from .event_client import DEAD_LETTERS, EVENTS, REQUESTS, EventClient
from .frames import to_frame
from .problems import Defect, StreamBroken, TaskFailed, Unreachable
from .retries import Retries
from .steps import Answer
from .tasks import AsyncTask, Task

__all__ = [
    "DEAD_LETTERS",
    "EVENTS",
    "REQUESTS",
    "Answer",
    "AsyncClient",
    "AsyncTask",
    "Client",
    "Defect",
    "EventClient",
    "Retries",
    "StreamBroken",
    "Task",
    "TaskFailed",
    "Unreachable",
    "to_frame",
]
