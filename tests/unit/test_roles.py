"""Every operation and page has a role, and the table has nothing else."""

from __future__ import annotations

from mlaas.catalog_api.interface import OPERATIONS
from mlaas.catalog_api.openapi import document
from mlaas.catalog_api.roles import ORDER, ROLES
from mlaas.web.page import Page, nothing
from mlaas.web.routes import FAMILIES

PAGES = [*(page for family in FAMILIES for page in family.PAGES), Page("/<path:_>", nothing)]
OPEN_FORMS = {"login", "logout", "try_model", "try_index"}


def test_every_operation_of_the_description_and_every_page_has_a_row() -> None:
    described = {one["operationId"] for path in document()["paths"].values() for one in path.values()}
    assert {*described, *(f"web.{page.view.__name__}" for page in PAGES)} == set(ROLES)
    assert set(ROLES.values()) <= set(ORDER)


def test_whatever_changes_something_needs_more_than_reading() -> None:
    assert {one.role for one in OPERATIONS if one.changes} <= {"owner", "admin"}
    assert all(one.changes for one in OPERATIONS if one.method != "GET")
    forms = {page.view.__name__: page.role for page in PAGES if "POST" in page.methods}
    assert {name for name, role in forms.items() if role not in ("owner", "admin")} == OPEN_FORMS


def test_the_description_says_which_role_an_operation_needs() -> None:
    said = {one["operationId"]: one for path in document()["paths"].values() for one in path.values()}
    assert said["deleteEntry"]["description"] == "Needs the role owner."
    assert {"401", "403"} <= set(said["deleteEntry"]["responses"])
    assert "security" not in said["listEntries"]
