"""The document store of an institute: MongoDB 4.4 or later, through pymongo.

Only single-document operations are used, so a standalone server without transactions keeps every promise. Writes wait
for a majority unless the URL says otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from pymongo import DESCENDING, MongoClient, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError

from ..errors import InvalidRequest, StoreAway
from . import INDEXED, Between, Stored

__all__ = ["MongoDocuments"]

_SELECTION_MS = 5000
_TIMEOUT_MS = 10_000  # for a whole operation, tries included: a half-open connection must not hold a request for ever
_DATABASE = "mlaas"

Raw = dict[str, Any]


class MongoDocuments:
    """Documents in the database that `url` names, `mlaas` by default. The client, and so the connection, is made at the first use."""

    def __init__(self, url: str) -> None:
        self._url = url

    def insert(self, collection: str, key: str, body: Mapping[str, Any], *, after: int = 0) -> bool:
        document = {"_id": key, "created": max(time.time_ns(), after + 1), "state": {"revision": 1, "body": dict(body)}}
        with _errors():
            try:
                self._collection(collection).insert_one(document)
            except DuplicateKeyError:
                return False
            return True

    def get(self, collection: str, key: str) -> Stored | None:
        with _errors():
            raw = self._collection(collection).find_one({"_id": key})
        return _stored(raw) if raw else None

    def replace(self, collection: str, stored: Stored, body: Mapping[str, Any]) -> bool:
        # Revision and body are one field, so that they change in one step even where a server shows updates field by field.
        change = {"$set": {"state": {"revision": stored.revision + 1, "body": dict(body)}}}
        with _errors():
            done = self._collection(collection).find_one_and_update(
                {"_id": stored.key, "state.revision": stored.revision}, change, {"_id": 1}
            )
        return done is not None

    def find(self, collection: str, match: Mapping[str, Any], *, limit: int = 100, before: str | None = None) -> list[Stored]:
        query = _query(match)
        if before:
            created, _, key = before.partition(":")
            query["$or"] = [{"created": {"$lt": int(created)}}, {"created": int(created), "_id": {"$lt": key}}]
        with _errors():
            found = self._collection(collection).find(query).sort([("created", DESCENDING), ("_id", DESCENDING)]).limit(limit)
            return [_stored(raw) for raw in found]

    def count(self, collection: str, match: Mapping[str, Any]) -> int:
        with _errors():
            return self._collection(collection).count_documents(_query(match))

    def close(self) -> None:
        if client := self.__dict__.pop("_client", None):
            client.close()
        self.__dict__.pop("_database", None)

    def _collection(self, name: str) -> Collection[Raw]:
        return self._database[name]

    @cached_property
    def _client(self) -> MongoClient[Raw]:
        limits: Raw = {"serverSelectionTimeoutMS": _SELECTION_MS, "connectTimeoutMS": _SELECTION_MS, "timeoutMS": _TIMEOUT_MS}
        unsaid = {name: limit for name, limit in limits.items() if name.lower() not in self._url.lower()}
        return MongoClient(self._url, appname="mlaas", **unsaid)

    @cached_property
    def _database(self) -> Database[Raw]:
        concern = None if "w=" in self._url else WriteConcern(w="majority")
        database = self._client.get_default_database(_DATABASE, write_concern=concern)
        for collection, fields in INDEXED.items():
            database[collection].create_index([("created", DESCENDING), ("_id", DESCENDING)])
            for field in fields:
                database[collection].create_index([(f"state.body.{field}", 1), ("created", DESCENDING)])
        return database


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise StoreAway("the document store cannot be used now") from error
    except (ValueError, TypeError) as error:
        raise InvalidRequest(
            "the document store's URL cannot be used", field="MLAAS_DOCUMENTS", remedy="Use mongodb://HOST:PORT/DATABASE."
        ) from error


def _query(match: Mapping[str, Any]) -> Raw:
    return {f"state.body.{field}": _condition(value) for field, value in match.items()}


def _condition(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"$in": list(value)}
    return _range(value) if isinstance(value, Between) else value


def _range(between: Between) -> Raw:
    """An open end still matches texts only, as every comparison of MongoDB is within one type."""
    return {"$gte": between.low or ""} | ({"$lt": between.high} if between.high is not None else {})


def _stored(raw: Mapping[str, Any]) -> Stored:
    return Stored(raw["_id"], raw["state"]["revision"], raw["created"], raw["state"]["body"])
