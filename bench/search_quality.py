"""Quality of search before and after the embedding is tuned on pairs of title and abstract: nDCG@10.

    python bench/search_quality.py --cranfield FOLDER                                  # tuned on the collection's own titles and texts
    python bench/search_quality.py --pairs FILE --pairs-limit 1000 [--cranfield FOLDER]  # on a JSONL file with `title` and `abstract`

What is searched. cranfield: FOLDER holds corpus.jsonl (_id, title, text), queries.jsonl (_id, text) and qrels.tsv (query_id, corpus_id,
code). Neither queries nor judgements are trained on; with the collection's own pairs the documents are, as they are known when an index
is built. A document of code 1 to 4 gains 4 to 1, all others nothing. held-out abstracts: of the pairs that were not trained on, each title
asks for its own abstract among all abstracts of the file, those that were trained on too.

Documents are ranked by L2 distance over the whole collection. Prints the figures and a 95% interval of the difference (paired bootstrap
over the queries), and adds them to bench/results/search_quality.json. 1 is returned if no collection is searched better.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import random
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, described

from mlaas import bundles, embedder, engine, samples
from mlaas.contracts import TrainRequest, parse

RESULTS = Path(__file__).parent / "results" / "search_quality.json"
DEPTH, DRAWS = 10, 10_000


@dataclass(frozen=True)
class Collection:
    """Texts to search, and each query with the gains of the documents (by position) that are relevant to it."""

    name: str
    documents: list[str]
    queries: list[tuple[str, dict[int, int]]]


def rows(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]


def cranfield(folder: Path) -> tuple[Collection, list[dict[str, str]]]:
    """The collection, and its titles, each with the text that follows it."""
    corpus = [row for row in rows(folder / "corpus.jsonl") if row["text"].strip()]
    place = {row["_id"]: position for position, row in enumerate(corpus)}
    gains: dict[str, dict[int, int]] = defaultdict(dict)
    with (folder / "qrels.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if 1 <= (code := int(row["code"])) <= 4 and row["corpus_id"] in place:
                gains[row["query_id"]][place[row["corpus_id"]]] = 5 - code
    queries = [(row["text"], gains[row["_id"]]) for row in rows(folder / "queries.jsonl") if gains[row["_id"]]]
    pairs = [{"title": row["title"], "abstract": row["text"].removeprefix(row["title"]).strip()} for row in corpus]
    return Collection("cranfield", [row["text"] for row in corpus], queries), [
        pair for pair in pairs if pair["abstract"] and pair["title"].strip()
    ]


def held_out(pairs: list[dict[str, str]], taught: list[dict[str, str]]) -> Collection:
    """Of `pairs` those that share neither title nor abstract with one that is taught: their titles ask."""
    documents = list(dict.fromkeys(pair["abstract"] for pair in pairs))
    place = {text: position for position, text in enumerate(documents)}
    seen = {pair[name].casefold().strip() for pair in taught for name in ("title", "abstract")}
    fresh = {pair["title"]: pair["abstract"] for pair in pairs if not seen & {pair[n].casefold().strip() for n in ("title", "abstract")}}
    return Collection("held-out abstracts", documents, [(title, {place[text]: 1}) for title, text in fresh.items()])


def ndcg(ranked: list[int], gains: dict[int, int]) -> float:
    """Normalised discounted cumulative gain of the first DEPTH (Jarvelin and Kekalainen 2002), discount log2(rank + 1)."""
    discount = 1 / np.log2(np.arange(2, DEPTH + 2))
    found = np.array([gains.get(one, 0) for one in ranked[:DEPTH]])
    ideal = np.array(sorted(gains.values(), reverse=True)[:DEPTH])
    return float((found * discount[: len(found)]).sum() / (ideal * discount[: len(ideal)]).sum())


def searched(bundle: bundles.Bundle, collection: Collection) -> Any:
    """nDCG and recall at DEPTH of each query, an array [queries, 2]."""
    model = engine.load(bundle)
    documents, _ = embedder.embed(model, collection.documents)
    asked, _ = embedder.embed(model, [text for text, _ in collection.queries])
    found = []
    for vector, (_, gains) in zip(asked, collection.queries, strict=True):
        ranked = np.argsort(((documents - vector) ** 2).sum(axis=1), kind="stable")[:DEPTH].tolist()
        found.append((ndcg(ranked, gains), len(set(ranked) & gains.keys()) / len(gains)))
    return np.array(found)


def request(options: argparse.Namespace) -> dict[str, Any]:
    """The data of the `train.requested` event."""
    return {
        "model": {"path": "minilm", "objective": "sentence-embedding"},
        "model_train": {
            "epochs": options.epochs,
            "batch_size": options.batch,
            "max_length": options.max_length,
            "seed": options.seed,
            "deadline_minutes": options.deadline_minutes,
            "optimizer": {"init_lr": options.learning_rate, "num_warm_steps": 5},
        },
        "dataset": {"path": "pairs.jsonl", "text_column": "title", "pair_column": "abstract", "train_test_split": 0.05},
        "model_save": {"path": "bench"},
    }


def interval(before: Any, after: Any, seed: int) -> list[float]:
    """The 95% interval of the mean difference, by a paired bootstrap over the queries."""
    drawn = np.random.default_rng(seed).integers(0, len(before), (DRAWS, len(before)))
    return [round(float(each), 4) for each in np.quantile((after - before)[drawn].mean(axis=1), (0.025, 0.975))]


def compared(collection: Collection, before: Any, after: Any, seed: int) -> dict[str, Any]:
    """The figures of a collection, and a line of them."""
    (ndcg_before, recall_before), (ndcg_after, recall_after) = before.mean(axis=0).tolist(), after.mean(axis=0).tolist()
    found = {
        "documents": len(collection.documents),
        "queries": len(collection.queries),
        "before": {"ndcg_at_10": round(ndcg_before, 4), "recall_at_10": round(recall_before, 4)},
        "after": {"ndcg_at_10": round(ndcg_after, 4), "recall_at_10": round(recall_after, 4)},
        "difference": round(ndcg_after - ndcg_before, 4),
        "interval_95": interval(before[:, 0], after[:, 0], seed),
    }
    print(
        f"{collection.name}, {found['queries']} queries of {found['documents']}: nDCG@{DEPTH} {ndcg_before:.4f} -> {ndcg_after:.4f} "
        f"({found['difference']:+.4f}, 95% interval {found['interval_95']}), recall@{DEPTH} {recall_before:.4f} -> {recall_after:.4f}"
    )
    return found


def main() -> int:
    """Search, tune, search again; 1 if the tuned model is nowhere better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cranfield", type=Path)
    parser.add_argument("--pairs", type=Path, help="JSONL with title and abstract; Cranfield's own by default")
    parser.add_argument("--pairs-limit", type=int, default=1400, help="pairs that are trained on, drawn by the seed")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text that are read, in training and search")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--deadline-minutes", type=float, help="after which the training ends with what it has learnt; none by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.cranfield and not options.pairs:
        parser.error("give --cranfield or --pairs")
    from mlaas.training.export import export
    from mlaas.training.run import Sources, train

    began, checkpoint = time.monotonic(), samples.checkpoint("minilm")
    collections, pairs = [], []
    if options.cranfield:
        collection, pairs = cranfield(options.cranfield)
        collections.append(collection)
    known = [{name: row[name] for name in ("title", "abstract")} for row in rows(options.pairs)] if options.pairs else pairs
    pairs = random.Random(options.seed).sample(known, min(options.pairs_limit, len(known)))
    if options.pairs:
        collections.append(held_out(known, pairs))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
        untuned = dataclasses.replace(export(checkpoint, "sentence-embedding", folder / "untuned"), max_length=options.max_length)
        before = [searched(untuned, each) for each in collections]
        sources = Sources(checkpoint=checkpoint, tokenizer=None, table=folder / "pairs.jsonl")
        outcome = train(parse(TrainRequest, request(options)), sources, folder / "tuned", lambda report: None)
        after = [searched(outcome.bundle, each) for each in collections]
    found = {each.name: compared(each, *figures, options.seed) for each, *figures in zip(collections, before, after, strict=True)}
    record = {
        "pairs": options.pairs.name if options.pairs else "the collection's own titles and texts",
        "pairs_train": outcome.dataset["samples_train"],
        "collections": found,
        "tokens_trained": outcome.dataset["tokens_trained"],
        "stopped": outcome.stopped,
        "tokens_per_second": outcome.dataset["tokens_per_second"],
        "request": request(options),
        "machine": described(),
        "command": command(),
        "seconds": round(time.monotonic() - began, 1),
    }
    recorded = json.loads(options.results.read_text()) if options.results.exists() else []
    kept = [one for one in recorded if one["request"] != record["request"] or one["pairs"] != record["pairs"]]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps([*kept, record], indent=2) + "\n")
    return 0 if any(each["difference"] > 0 for each in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
