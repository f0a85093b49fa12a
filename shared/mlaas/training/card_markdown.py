"""A model card as Markdown, in the layout of the Hugging Face Hub: YAML front matter, then sections. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .card_uses import intended_use, limits

__all__ = ["Details", "render"]

ROWS = 60  # of a table of classes or epochs
TRIALS = 10  # of a search that are shown, the best ones
SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$])")
TASKS = {"masked-lm": "fill-mask", "causal-lm": "text-generation", "sentence-embedding": "sentence-similarity",
         "no-objective": "feature-extraction", "next-sentence-prediction": "text-classification"}  # fmt: skip
PICTURES = {"pictures/loss.svg": "Loss while training", "pictures/confusion.svg": "Confusion matrix"}
DATA = {"samples_train": "training rows", "samples_test": "held-out rows", "split": "share held out", "classes": "classes",
        "tokens": "training tokens", "dropped_empty": "dropped, empty", "dropped_unlabelled": "dropped, without a label",
        "dropped_duplicates": "dropped, duplicates"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Details:
    """What is shown and kept elsewhere: the task has the history, the catalog the evaluation, the version's folder the pictures."""

    history: Mapping[str, Any]
    classes: Mapping[str, Mapping[str, float]]
    pictures: Sequence[str]


def render(figures: Mapping[str, Any], details: Details) -> str:
    """The whole card. It holds labels and figures, and no text of the data."""
    sections = {
        "Intended use": [intended_use(figures["objective"])],
        "Metrics": _metrics(figures, details),
        "Data": _data(figures),
        "Training": _training(figures, details),
        "Search": _search(figures["search"], details.history.get("trials") or ()),
        "ONNX variants": _variants(figures),
        "Limits": [f"- {_plain(one)}" for one in limits(figures, details.classes)],
        "Licence": [_licence(figures["licence"])],
        "Lineage": _lineage(figures["lineage"]),
    }
    parts = [_front_matter(figures), f"# {_plain(figures['name'])}", "", _what(figures)]
    for title, lines in sections.items():
        if body := list(lines):
            parts += ["", f"## {title}", "", *body]
    return "\n".join(parts) + "\n"


def _front_matter(figures: Mapping[str, Any]) -> str:
    task = TASKS.get(figures["objective"], figures["objective"])
    results = [{"type": name, "value": _rounded(value)} for name, value in figures["metrics"].items()]
    data = {"name": str(_dataset(figures).get("path", "unnamed")), "type": "custom"}
    fields = {
        "license": figures["licence"]["id"].lower(),
        "pipeline_tag": task,
        "library_name": "onnx",
        "tags": [tag for tag in ("onnx", "mlaas", figures["objective"], figures["architecture"]) if tag],
        "objective": figures["objective"],
        "metrics": sorted(figures["metrics"]),
    }
    if results:
        found = {"task": {"type": task}, "dataset": data, "metrics": results}
        fields["model-index"] = [{"name": figures["name"], "results": [found]}]
    lines = [f"{name}: {_yaml(value)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _what(figures: Mapping[str, Any]) -> str:
    words = [f"A model of type `{figures['architecture']}` for {figures['objective']}"]
    if parameters := figures["training"].get("parameters"):
        words.append(f"{parameters:,} parameters")
    if figures["architecture"] != "ngrams":
        words.append(f"texts of up to {figures['max_length']:,} tokens")
    if figures["labels"]:
        words.append(f"{figures['labels']} labels")
    return ", ".join(words) + "."


def _metrics(figures: Mapping[str, Any], details: Details) -> Iterator[str]:
    if figures["metrics"]:
        yield from _table(("figure", "held-out rows"), [(name, _number(value)) for name, value in figures["metrics"].items()])
    if details.classes:
        ranked = sorted(details.classes.items(), key=lambda each: -each[1]["support"])
        rows = [(name, *(_number(one[part]) for part in ("precision", "recall", "f1", "support"))) for name, one in ranked[:ROWS]]
        yield from ("", *_table(("class", "precision", "recall", "F1", "rows"), rows))
        if len(ranked) > ROWS:
            yield from ("", f"{len(ranked) - ROWS} more classes have fewer rows; the catalog's entry has them all.")
    yield from _picture("pictures/confusion.svg", details)


def _data(figures: Mapping[str, Any]) -> Iterator[str]:
    if not figures["data"]:
        return
    rows = [(DATA.get(name, name), _number(value)) for name, value in figures["data"].items() if isinstance(value, int | float)]
    if sha256 := figures["lineage"].get("data_sha256"):
        rows.append(("sha256", sha256))
    if path := _dataset(figures).get("path"):
        rows.insert(0, ("data set", f"{_dataset(figures).get('storage_type', 'local')}: {path}"))
    yield from _table(("data", ""), rows)


def _training(figures: Mapping[str, Any], details: Details) -> Iterator[str]:
    flat = [*_flat(figures["settings"]), *(each for each in _flat(figures["training"]) if each[0] != "parameters")]
    if flat:
        yield from _table(("setting", "value"), flat)
    history = details.history
    curves = [name for name in ("loss", "validation_loss", "accuracy") if history.get(name)]
    if curves:
        epochs = list(enumerate(zip(*(history[name] for name in curves), strict=False), start=1))
        yield from ("", *_table(("epoch", *curves), [(str(epoch), *map(_number, one)) for epoch, one in epochs[-ROWS:]]))
    yield from _picture("pictures/loss.svg", details)


def _search(found: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How the settings were found: the best trials, and how many there were."""
    if not found:
        return
    counted = ", ".join(f"{count} {state}" for state, count in found["trials"].items())
    least = {"minimize": "least", "maximize": "greatest"}[found["direction"]]
    yield f"The settings are those of trial {found['trial']} of a search for the {least} `{found['metric']}`; its trials: {counted}."
    sign = 1 if found["direction"] == "minimize" else -1
    complete = sorted((one for one in trials if one["state"] == "complete"), key=lambda one: (sign * one["value"], one["number"]))
    names = list(found["parameters"])
    rows = [
        (str(one["number"]), _number(one["value"]), *(_setting(one["parameters"][name]) for name in names)) for one in complete[:TRIALS]
    ]
    yield from ("", *_table(("trial", found["metric"], *names), rows))


def _setting(value: Any) -> str:
    return _number(value) if isinstance(value, int | float) else str(value)


def _variants(figures: Mapping[str, Any]) -> Iterator[str]:
    measured, parity = figures["variants"], figures["parity"]
    if measured:
        main = measured[0].get("metric") or next((name for name in ("accuracy", "loss") if name in measured[0]["metrics"]), "loss")
        heads = ("variant", "served", "MB", "texts/s", "texts", main, "loss of it", "cosine to fp32", "agreement")
        yield from _table(heads, [_variant(one, main) for one in measured])
        yield from ("", "Measured on a CPU of the machine that trained, while others may have used it: compare the rows with each other.")
    if parity:
        yield from (
            "",
            f"The served graph differs from the trained model by at most {parity['max_abs_diff']:.2g} over {parity['rows']:,} rows, "
            f"{parity['tolerance']:.2g} is tolerated; {parity['agreement']:.2%} of the choices are the same.",
        )


def _variant(one: Mapping[str, Any], main: str) -> tuple[str, ...]:
    lost = one.get("accuracy_loss")
    cost = "" if one["served"] else f"{lost:.4f}" if lost is not None else one.get("note") or "unknown"
    rest = (_number(one["metrics"].get(main)), cost, _number(one.get("cosine")), _number(one.get("agreement")))
    return (
        one["variant"],
        "by default" if one["served"] else "where allowed",
        "" if one["bytes"] is None else f"{one['bytes'] / 1e6:.2f}",
        _number(one["texts_per_second"]),
        f"{one['texts']:,}",
        *rest,
    )


def _licence(licence: Mapping[str, str]) -> str:
    said = {"request": "as the request for it says", "base model": "as the files of its base model say", "nobody": "nobody has said it"}
    return f"`{licence['id']}`, {said[licence['from']]}."


def _lineage(lineage: Mapping[str, Any]) -> Iterator[str]:
    names = ("digest", "base", "data_sha256", "task_id", "trace_id", "created", "versions")
    yield from _table(("", ""), _flat({name: lineage[name] for name in names if lineage.get(name)}))
    if lineage["request"]:
        yield from ("", "The request:", "", "```json", *json.dumps(lineage["request"], indent=1, ensure_ascii=False).splitlines(), "```")


def _picture(name: str, details: Details) -> Iterator[str]:
    if name in details.pictures:
        yield from ("", f"![{PICTURES[name]}]({name})")


def _dataset(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    return figures["lineage"]["request"].get("dataset") or {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names such as `optimizer.init_lr`, and values as they are written."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found.append((prefix + name, _setting(value)))
    return found


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if 0.001 <= abs(value) < 100 else f"{value:,.4g}"


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _plain(text: str) -> str:
    """`text` in one line of Markdown that shows it as it is: labels and names are the user's."""
    return SPECIAL.sub(r"\\\1", "".join(letter if letter.isprintable() else " " for letter in text))


def _yaml(value: Any) -> str:
    """JSON is YAML, as long as no character is one that YAML refuses."""
    return "".join(letter if letter.isprintable() else " " for letter in json.dumps(value, ensure_ascii=False))
