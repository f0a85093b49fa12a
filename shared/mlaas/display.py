"""What the command line shows: tables and progress for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudevents.http import CloudEvent
from rich import filesize
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import events, kafka_lag, progress_bars
from .client import Answer
from .errors import MlaasError
from .storage import Link
from .tasks import FINAL

__all__ = [
    "answered",
    "card",
    "catalog",
    "classified",
    "console",
    "embedded",
    "entry",
    "error",
    "event",
    "filled",
    "follow",
    "generated",
    "json_",
    "links",
    "note",
    "recognized",
    "rows",
    "said",
    "searched",
    "task",
    "tasks",
]

console = Console(highlight=False)
_POLL_SECONDS = 0.5
_errors = progress_bars.console


def json_(value: Any) -> None:
    """Print `value` as one line of JSON."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def error(problem: MlaasError) -> None:
    """One line that says what was wrong, where, and what to do."""
    where = f" ({problem.field})" if problem.field else ""
    _errors.print(f"error{where}: {problem.detail}", style="red", markup=False)
    if problem.remedy:
        _errors.print(problem.remedy, markup=False)


def note(text: str) -> None:
    """A remark beside the result, on standard error."""
    _errors.print(text, markup=False, soft_wrap=True)


def said(text: str, value: Any, as_json: bool) -> None:
    """A sentence, or `value` as JSON."""
    json_(value) if as_json else console.print(text, markup=False, soft_wrap=True)


def event(event: CloudEvent, as_json: bool, *, data: bool = False) -> None:
    """One event a line; with `data`, its data below it."""
    if as_json:
        json_(events.to_json(event))
        return
    reason = f" {event.get('knativeerrorcode')} {kafka_lag.reason(event)}" if event.get("knativeerrorcode") else ""
    console.print(
        f"{str(event.get('time') or '')[11:23]:12} {event['type']:44} {event.get('subject') or event['id']}{reason}",
        markup=False,
        soft_wrap=True,
    )
    if data:
        whole = events.to_json(event)
        console.print_json(json.dumps(whole.get("data", whole.get("data_base64")), ensure_ascii=False))


def classified(texts: Sequence[str], answer: Answer, as_json: bool) -> None:
    """A row for each text."""
    table = _table("text", "label", "probability", "other labels")
    for text, one in zip(texts, answer.data["predictions"], strict=True):
        others = ", ".join(f"{score['label']} {score['score']:.3f}" for score in one["scores"][1:])
        table.add_row(
            _short(text, one["truncated"]), one.get("label") or "-", f"{one['score']:.3f}" if one.get("score") is not None else "-", others
        )
    _answered(table, answer, as_json)


def filled(texts: Sequence[str], answer: Answer, as_json: bool) -> None:
    """A row for each mask, and the filled sentence."""
    table = _table("text", "mask", "candidates")
    for text, one in zip(texts, answer.data["predictions"], strict=True):
        for number, candidates in enumerate(one["masks"], start=1):
            row = ", ".join(f"{candidate['token']} {candidate['probability']:.3f}" for candidate in candidates)
            table.add_row(_short(text, one["truncated"]) if number == 1 else "", str(number), row)
        table.add_row("", "", one["filled"], style="bold")
    _answered(table, answer, as_json)


def recognized(texts: Sequence[str], answer: Answer, as_json: bool) -> None:
    """A row for each entity."""
    table = _table("text", "entity", "label", "probability", "place")
    for text, one in zip(texts, answer.data["predictions"], strict=True):
        for number, entity in enumerate(one["entities"] or [None]):
            cells = (entity["text"], entity["label"], f"{entity['score']:.3f}", f"{entity['start']}-{entity['end']}") if entity else ("-",)
            table.add_row(_short(text) if number == 0 else "", *cells)
    _answered(table, answer, as_json)


def answered(questions: Sequence[str], answer: Answer, as_json: bool) -> None:
    """A row for each question."""
    table = _table("question", "answer", "probability", "place")
    for question, one in zip(questions, answer.data["predictions"], strict=True):
        where = f"{one['start']}-{one['end']}" if one.get("answer") is not None else ""
        table.add_row(_short(question), one.get("answer") or "-", f"{one['score']:.3f}", where)
    _answered(table, answer, as_json)


def embedded(texts: Sequence[str], answer: Answer, as_json: bool) -> None:
    """A row for each vector, its first numbers only."""
    table = _table("text", "dimension", "vector")
    for text, vector, truncated in zip(texts, answer.data["vectors"], answer.data["truncated"], strict=True):
        shown = ", ".join(f"{value:.4f}" for value in vector[:4])
        table.add_row(_short(text, truncated), str(len(vector)), f"{shown}, ..." if len(vector) > 4 else shown)
    _answered(table, answer, as_json)


def generated(texts: Sequence[str], answer: Answer, as_json: bool) -> None:
    """Each text with what follows it."""
    table = _table("text", "tokens", "finish")
    for text, one in zip(texts, answer.data["predictions"], strict=True):
        table.add_row(text + one["text"], str(one["tokens"]), one["finish"])
    _answered(table, answer, as_json)


def searched(texts: Sequence[str], answer: Answer, as_json: bool) -> None:
    """A row for each document that was found."""
    table = _table("query", "L2", "id", "document")
    for text, found in zip(texts, answer.data["results"], strict=True):
        for rank, one in enumerate(found):
            title = one["metadata"].get("title") or one["text"]
            table.add_row(_short(text) if rank == 0 else "", f"{one['score']:.3f}", one["id"], _short(str(title)))
    _answered(table, answer, as_json)


def tasks(found: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """A row for each task."""
    if as_json:
        json_(found)
        return
    table = _table("task", "what", "status", "elapsed", "result")
    for one in found:
        table.add_row(one["task_id"], one["capability"], _status(one), _seconds(one["stats"].get("elapsed")), _result(one))
    console.print(table)


def task(one: Mapping[str, Any], as_json: bool) -> None:
    """The task document."""
    if as_json:
        json_(one)
        return
    shown = {name: value for name, value in one.items() if name != "history"}
    evaluation = dict(one.get("evaluation", {}))
    for large in ("confusion", "per_class"):
        if large in evaluation:
            evaluation[large] = "... (see --json)"
    history = {name: value for name, value in one.get("history", {}).items() if name not in ("steps", "trials")}
    console.print_json(json.dumps({**shown, "evaluation": evaluation, "history": history}, ensure_ascii=False))
    if found := one.get("history", {}).get("trials"):
        console.print(_trials(found))


def entry(one: Mapping[str, Any], as_json: bool) -> None:
    """A catalog entry."""
    if as_json:
        json_(one)
    else:
        shown = {**one, "card": f"... (see mlaas catalog card {one['name']} --version {one['version']})"} if one.get("card") else one
        console.print_json(json.dumps(shown, ensure_ascii=False))


def card(one: Mapping[str, Any], *, raw: bool, as_json: bool) -> None:
    """A model card without its front matter, or with it as it is."""
    if as_json:
        json_(one)
    elif raw:
        print(one["markdown"], end="")
    else:
        from rich.markdown import Markdown

        console.print(Markdown(one["markdown"].split("\n---\n", 1)[-1]))


def changes(found: Sequence[Mapping[str, Any]], following: str | None, as_json: bool) -> None:
    """A row for each change; `following` is the cursor of the next page."""
    if as_json:
        json_({"items": list(found), "next": following})
        return
    table = _table("time", "by", "operation", "what", "outcome", "made")
    for one in found:
        what = "/".join(one[part] for part in ("kind", "name", "target") if one[part])
        outcome = f"{one['outcome']} ({one['reason']})" if one["reason"] else one["outcome"]
        row = (one["time"][:19].replace("T", " "), one["subject"], one["operation"], what, outcome, one["made"] or "")
        table.add_row(*(escape(text) for text in row))
    console.print(table)
    if following:
        note(f"There are more: --cursor {following}")


def catalog(found: Mapping[str, tuple[Sequence[Mapping[str, Any]], Mapping[str, Mapping[str, str]]]], as_json: bool) -> None:
    """A row for each version."""
    if as_json:
        without = {
            kind: [{name: value for name, value in one.items() if name != "card"} for one in each] for kind, (each, _) in found.items()
        }
        json_({kind: {"versions": without[kind], "aliases": aliases} for kind, (_, aliases) in found.items()})
        return
    table = _table("kind", "name", "version", "aliases", "what", "digest", "created")
    for kind, (versions, aliases) in found.items():
        for one in versions:
            mine = [alias for alias, version in aliases.get(one["name"], {}).items() if version == one["version"]]
            what = one.get("objective") or f"{one.get('count')} documents"
            table.add_row(kind, one["name"], one["version"], ", ".join(mine), what, one["digest"][:12], one["created"][:16])
    console.print(table)


def rows(found: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    """A row for each, with these columns; what is not there is empty."""
    if as_json:
        json_(found)
        return
    table = _table(*columns)
    for one in found:
        table.add_row(*("" if one.get(column) in (None, False) else str(one[column]) for column in columns))
    console.print(table)


def quotas(page: Mapping[str, Any], as_json: bool) -> None:
    """A row for each quota of each owner."""
    if as_json:
        json_(page)
        return
    table = _table("owner", "quota", "limit", "used", "resets")
    for one in page["items"]:
        for name, quota in one.items():
            if name != "owner":
                limit = f"{quota['limit'] or 'none'}{' (own)' if quota['own'] else ''}"
                table.add_row(escape(one["owner"]), name, limit, str(quota["used"]), quota["resets"] or "")
    console.print(table)
    if page["next"]:
        note(f"There are more: --cursor {page['next']}")


def entries(page: Mapping[str, Any], as_json: bool) -> None:
    """A row for each entry that was found."""
    if as_json:
        json_(page)
        return
    table = _table("name", "task", "latest", "aliases", "tags", "visibility", "downloads", "served", "updated")
    for one in page["items"]:
        pointing = ", ".join(f"{alias}={version}" for alias, version in sorted(one["aliases"].items()))
        seen = (one["visibility"], str(one["downloads"]), str(one["served"]), one["updated"][:16])
        table.add_row(one["name"], one["task"] or "", one["latest"], pointing, ", ".join(one["tags"]), *seen)
    console.print(table)
    if page["next"]:
        note(f"{page['total']} in all; the next page: --cursor {page['next']}")


def follow(get: Callable[[str], dict[str, Any]], task_id: str, as_json: bool) -> dict[str, Any]:
    """Show the progress of a task until it ends; the task as it ended."""
    with progress_bars.following(task_id, disable=as_json) as show:
        while True:
            one = get(task_id)
            if as_json:
                json_({"task_id": task_id, "task_status": one["task_status"], "progress": one.get("progress", {})})
            show(one)
            if one["task_status"] in FINAL:
                return one
            time.sleep(_POLL_SECONDS)


def links(found: Sequence[Link], as_json: bool) -> None:
    """A row for each file that can be downloaded by a link, and the links below: they are too long for a table."""
    if as_json:
        json_([dataclasses.asdict(link) for link in found])
        return
    table = _table("file", "size", "sha256")
    for link in found:
        table.add_row(link.name, filesize.decimal(link.size), link.sha256 or "-")
    console.print(table)
    for link in found:
        console.print(f"\n{link.name}\n{link.url}", markup=False, soft_wrap=True)


def _trials(found: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each trial of a search: its last value where it has no final one."""
    names = list(found[0]["parameters"])
    table = _table("trial", "state", "value", "epochs", "seconds", *(name.removeprefix("model_train.") for name in names))
    for one in found:
        values = one["values"]
        last = one.get("value", values[max(values, key=int)] if values else None)
        state = f"{one['state']}: {one['error']['detail']}" if one.get("error") else one["state"]
        chosen = (_figure(one["parameters"][name]) for name in names)
        table.add_row(str(one["number"]), state, _figure(last), str(len(values)), f"{one['seconds']:.0f}", *chosen)
    return table


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _answered(table: Table, answer: Answer, as_json: bool) -> None:
    if as_json:
        json_(answer.data)
        return
    console.print(table)
    model = answer.data["model"]
    name = f"{model['name']} version {model['version']}" if model.get("name") else f"model {model['digest'][:12]}"
    console.print(f"{name}, {answer.seconds * 1000:.0f} ms ({answer.timing})", style="dim", markup=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("task", "status", "elapsed", "L2", "id"))
    return table


def _short(text: str, truncated: bool = False) -> str:
    shown = text if len(text) <= 72 else text[:69] + "..."
    return f"{shown} (truncated)" if truncated else shown


def _status(one: Mapping[str, Any]) -> str:
    colour = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}.get(one["task_status"], "cyan")
    return f"[{colour}]{one['task_status']}[/]"


def _result(one: Mapping[str, Any]) -> str:
    if error := one.get("error"):
        return str(error["detail"])
    result = one.get("result") or {}
    if predictions := result.get("predictions"):
        return f"{predictions['rows']:,} rows"
    made = result.get("index") or result.get("model") or {}
    return f"{made['name']} version {made['version']}" if made else f"{one.get('progress', {}).get('percent', 0):.0f}%"


def _seconds(value: float | None) -> str:
    return f"{value:.1f} s" if value is not None else ""
