"""The description of the catalog holds: no request made from it, well formed or not, ends in a server error or an answer it does not describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from mlaas import events, serve, settings
from mlaas.catalog import Catalog
from mlaas.catalog_api.interface import OPERATIONS
from mlaas.catalog_api.openapi import document
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.tasks import Tasks

FUNCTION = Path(__file__).parents[2] / "functions" / "catalog"
TASK = events.derived_id("/mlaas/client", "described", "train", "task", "")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture
def app(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLAAS_TOKEN", "t")
    settings.current.cache_clear()
    Catalog(shared()).set_alias("models", "physics-lm", "production", "1")
    Tasks(shared()).accept("train", {"model_save": {"path": "models/x"}}, events.new("train", {}, id="described"), publish=False)
    return serve.create_app(serve.load_function(FUNCTION), serve.State(ready=True))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # schemathesis does not close what it did not read
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.id)
def test_no_request_ends_in_a_server_error_or_an_answer_that_is_not_described(app: Any, operation: Any) -> None:
    described = schemathesis.openapi.from_dict(document())
    described.app = app
    found = described[operation.path][operation.method]
    known = {"kind": "models", "name": "physics-lm", "version": "1", "alias": "production", "file": "config.json", "task": TASK}
    known["owner"] = "group:physics"

    @hypothesis_settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=found.as_strategy(generation_mode=GenerationMode.POSITIVE) | found.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def run(case: Any) -> None:
        for path in (case.path_parameters, {name: value for name, value in known.items() if name in (case.path_parameters or {})}):
            case.path_parameters = path
            case.call_and_validate(headers={"Authorization": "Bearer t"}, checks=CHECKS)

    run()
