"""Who may do what: one table, from each operation of the REST interface and each page of the web app to the role that it needs.

`owner` is a user to whom the entry or task belongs, by the subject or by a group; the other roles are the principal's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

__all__ = ["ORDER", "ROLES", "Role"]

Role = Literal["anonymous", "reader", "user", "owner", "admin"]
ORDER: tuple[Role, ...] = ("anonymous", "reader", "user", "owner", "admin")

ROLES: Mapping[str, Role] = {
    # Of entries each sees only what its principal may read.
    "listEntries": "anonymous",
    "getEntry": "anonymous",
    "listVersions": "anonymous",
    "getVersion": "anonymous",
    "getCard": "anonymous",
    "listFiles": "anonymous",
    "getFile": "anonymous",
    "listAliases": "anonymous",
    "getAlias": "anonymous",
    "changeEntry": "owner",
    "deleteEntry": "owner",
    "uploadVersion": "owner",  # of a name that is not there yet, whoever is a user
    "deleteVersion": "owner",
    "putAlias": "owner",
    "rollBackAlias": "owner",
    "deleteAlias": "owner",
    # Of tasks and their events each user sees those of their own and of their groups.
    "listTasks": "user",
    "getTask": "user",
    "listEvents": "user",
    "cancelTask": "owner",
    "listChanges": "admin",
    "listQuotas": "reader",  # their own, and those of their groups
    "setQuotas": "admin",
    "web.start": "anonymous",
    "web.help_": "anonymous",
    "web.login": "anonymous",
    "web.enter": "anonymous",
    "web.to_issuer": "anonymous",
    "web.from_issuer": "anonymous",
    "web.logout": "anonymous",
    "web.nothing": "anonymous",
    "web.entries": "anonymous",
    "web.entry": "anonymous",
    "web.file_list": "anonymous",
    "web.file": "anonymous",
    "web.card": "anonymous",
    "web.try_model": "anonymous",
    "web.try_index": "anonymous",
    "web.move_alias": "owner",
    "web.roll_back_alias": "owner",
    "web.upload": "owner",
    "web.tasks": "user",
    "web.task": "user",
    "web.live": "user",
    "web.listed": "user",
    "web.chain": "user",
    # Their requests name places in the storage, which no entry guards.
    "web.train": "admin",
    "web.build": "admin",
    "web.demo": "admin",
    "web.demo_live": "user",
    "web.cancel": "owner",
    "web.parked": "admin",
    "web.letters": "admin",
    "web.replay": "admin",
}
