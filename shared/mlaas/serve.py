"""Serves one function: `python -m mlaas.serve functions/classify`.

The same routes as parliament's server, and: readiness that means "model loaded", /metrics, a bound on waiting requests,
and a graceful stop that lets every request in flight finish.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # before anything is imported that takes long
    from mlaas import starting

    starting.begin()

from . import callers, front, http_server, limits, logs, metrics, starting, trace_export
from .contracts import ModelRef, parse
from .errors import MlaasError, NotFound
from .front import State
from .runtime import problem_response
from .settings import Settings, current

if TYPE_CHECKING:
    import flask

__all__ = ["State", "application", "create_app", "load_function", "main"]

STOP_SECONDS = 25.0  # below Kubernetes' default grace period of 30 s
_PARSED_BODY_BYTES = 64 * 1024**2  # beyond, waitress itself refuses; below, the function refuses with a problem

log = logging.getLogger("mlaas")


def load_function(folder: Path) -> ModuleType:
    """The module `func.py` of a function's folder. Raises NotFound."""
    path = folder / "func.py"
    if not path.is_file():
        raise NotFound(f"{folder} holds no func.py", remedy="Name a function's folder, e.g. functions/classify.")
    spec = importlib.util.spec_from_file_location("func", path)
    assert spec, "a .py file has a loader"
    assert spec.loader, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def application(function: ModuleType, state: State) -> front.Front:
    """The WSGI application around a function's `main(context)`, which does without Flask as long as nothing asks for it."""
    return front.Front(function, state, lambda: create_app(function, state))


def create_app(function: ModuleType, state: State) -> flask.Flask:
    """The same as a Flask application, with the routes that the function serves beside `/`."""
    import flask

    app = flask.Flask("mlaas")
    if routes := getattr(function, "routes", None):
        app.register_blueprint(_counted(routes.blueprint(), state))

    @app.route("/", methods=["GET", "POST"])
    def invoke() -> Any:
        return front.invoke(function, state, flask.request, flask.make_response)

    @app.get("/health/liveness")
    def liveness() -> str:
        return "OK"

    @app.get("/health/readiness")
    def readiness() -> Any:
        return front.readiness(state)

    @app.get("/metrics")
    def scrape() -> Any:
        return front.scrape()

    return app


def _counted(routes: flask.Blueprint, state: State) -> flask.Blueprint:
    """What a function serves beside `/`, with each request counted in and out as those of `/` are."""
    import flask

    def enter() -> Any:
        try:
            state.enter()
        except MlaasError as error:
            return problem_response(error)
        flask.g.entered = time.perf_counter()
        return None

    def say(response: flask.Response) -> flask.Response:
        if (entered := flask.g.get("entered")) and flask.request.method == "POST" and response.status_code < 400:
            state.answered(time.perf_counter() - entered)
        return response

    def leave(_: BaseException | None) -> None:
        if flask.g.pop("entered", None):
            state.leave()

    routes.before_request(enter)
    routes.after_request(say)
    routes.teardown_request(leave)
    return routes


def main(arguments: list[str] | None = None) -> None:
    """Serve until told to stop."""
    imported = metrics.process_age()
    state = State()
    limits.small_heap()
    signal.signal(signal.SIGUSR1, _end)
    for number in (signal.SIGTERM, signal.SIGINT):  # from the beginning: the first process of a container ignores what has no handler
        signal.signal(number, lambda *_: threading.Thread(target=_stop, args=(state,), daemon=True).start())
    logs.configure()
    folder, settings = _asked(arguments)
    state.waiting_limit, state.waiting_seconds = settings.waiting, settings.queue_seconds
    try:
        function = load_function(folder)
    except MlaasError as error:
        sys.exit(f"{error.detail}. {error.remedy or ''}")
    name = folder.resolve().name
    trace_export.start(f"mlaas-{name}", settings)
    bounds: dict[str, Any] = {"max_request_body_size": _PARSED_BODY_BYTES}
    if routes := getattr(function, "routes", None):
        bounds |= routes.limits(settings)
    server = http_server.create(
        application(function, state),
        host=settings.host,
        port=settings.port,
        threads=settings.threads,
        **bounds,
        clear_untrusted_proxy_headers=False,
        ident="mlaas",
    )
    state.dispatcher = server.task_dispatcher
    threading.Thread(target=_get_ready, args=(state, settings, imported), daemon=True).start()
    log.info("function.started", extra={"fields": {"function": name, "port": settings.port, "pid": os.getpid()}})
    server.run()
    _write_counts()
    trace_export.flush()
    log.info("function.stopped", extra={"fields": {"function": name}})


def _asked(arguments: list[str] | None) -> tuple[Path, Settings]:
    """The function's folder, of the argument or of MLAAS_FUNCTION, and the settings. Ends the process where one cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m mlaas.serve",
        description="Serve one function over HTTP.",
        epilog="Example: PORT=8081 python -m mlaas.serve functions/classify",
    )
    parser.add_argument("folder", type=Path, nargs="?", help="the function's folder, with func.py in it; that of MLAAS_FUNCTION by default")
    named: Path | None = parser.parse_args(arguments).folder
    try:
        settings = current()
    except MlaasError as error:
        sys.exit(f"{error.detail}. {error.remedy or ''}")
    folder = named or settings.function
    if folder is None:
        sys.exit("No function is named. Name its folder, e.g. functions/classify, or set MLAAS_FUNCTION.")
    return folder, settings


def _get_ready(state: State, settings: Settings, imported: float) -> None:
    """Load the model to preload, trying again until it is there; then the function is ready. `imported`: the age at which all was."""
    listening = metrics.process_age()
    while settings.preload_model and not state.stopping:
        try:
            from . import models

            with callers.caller(callers.Caller()):
                models.load(parse(ModelRef, json.loads(settings.preload_model)), settings=settings).model.warm_up()
            break
        except (MlaasError, ValueError) as error:
            log.warning("model.not_loaded", extra={"fields": {"reason": getattr(error, "detail", "MLAAS_PRELOAD_MODEL is not JSON")}})
            starting.end()  # this may take long
            time.sleep(2)
    starting.end()
    state.started_after = metrics.process_age()
    state.ready = True
    begun = max(0.0, state.started_after - starting.begun())
    ages = {"begun_after": begun, "imported_after": imported, "listening_after": listening, "ready_after": state.started_after}
    fields = {name: round(age, 3) for name, age in ages.items()}
    log.info("function.ready", extra={"fields": fields})


def _stop(state: State) -> None:
    """Get no new requests, let those in flight finish, then end waitress' loop."""
    state.stopping = True
    deadline = time.monotonic() + STOP_SECONDS
    quiet = 0
    while time.monotonic() < deadline and quiet < 3:  # three looks in a row: an answer still has to leave its buffer
        quiet = 0 if state.in_flight or (state.dispatcher and state.dispatcher.queue) else quiet + 1
        time.sleep(0.03)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


def _write_counts() -> None:
    """Write what was counted and is not written yet; nothing is imported where nothing was."""
    for name in ("served", "catalog_api.request_counts"):
        if counts := sys.modules.get(f"{__package__}.{name}"):
            counts.close()


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
