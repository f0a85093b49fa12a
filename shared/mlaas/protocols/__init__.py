"""What people already speak, beside a function's own `/`: the Open Inference Protocol v2 under /v2 and OpenAI's embeddings under /v1.

Both end in the very `answer` that a function gives to its own requests. Nothing of them is imported before somebody asks, so that a
cold start does not pay for them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    import flask

    from ..runtime import Function
    from ..settings import Settings

__all__ = ["Routes", "in_its_form", "owner_of", "server"]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Routes:
    """What `function` serves beside `/`. `openai`: whether under /v1 as well."""

    function: Function[Any, Any]
    openai: bool = False

    def limits(self, _: Settings) -> dict[str, Any]:
        """What the server in front must let through: nothing more than for `/`."""
        return {}

    def blueprint(self) -> flask.Blueprint:
        """For the server's application."""
        import flask

        made = flask.Blueprint("protocols", __name__)
        for prefix, protocol in (("v2", "inference"), *((("v1", "openai"),) if self.openai else ())):
            view = self._view(protocol)
            for rule in (f"/{prefix}", f"/{prefix}/<path:path>"):
                made.add_url_rule(rule, protocol, view, methods=METHODS)
        made.after_request(in_its_form)
        made.record(lambda registered: _add_health(registered.app))
        return made

    def _view(self, protocol: str) -> Callable[..., Any]:
        def answered(path: str = "") -> Any:
            import flask

            return importlib.import_module(f".{protocol}", __name__).respond(self.function, flask.request, path)

        return answered


def in_its_form(response: flask.Response) -> flask.Response:
    """The response to the current request, a problem as the protocol of its path says it."""
    import flask

    from . import forms

    forms.put_into_form(flask.request.path, response)
    return response


def server() -> dict[str, Any]:
    """What GET /v2 says of the server."""
    return {"name": "mlaas", "version": __version__, "extensions": ["binary_tensor_data"]}


def owner_of(name: str, settings: Settings) -> str:
    """The capability that serves a model or an index of the catalog that `settings` name. Raises NotFound, Unavailable."""
    from ..catalog import Catalog
    from ..documents import shared
    from . import inference

    return inference.owner_of(name, Catalog(shared(settings)))


def _add_health(app: Any) -> None:
    """Liveness and readiness as the protocol has them; not counted as requests and never told to wait, as the server's own are not."""

    def live() -> Any:
        return {"live": True}

    def ready() -> Any:
        is_ready = app.make_response(app.view_functions["readiness"]()).status_code == 200
        return ({"live": True, "ready": True}, 200) if is_ready else ({"live": True, "ready": False}, 503, {"Retry-After": "1"})

    # An endpoint whose name begins with the blueprint's would be counted as its.
    app.add_url_rule("/v2/health/live", "inference_live", live)
    app.add_url_rule("/v2/health/ready", "inference_ready", ready)
