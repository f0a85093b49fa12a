"""Quality of search before and after the embedding is tuned on pairs of title and abstract: nDCG@10 on judged queries.

    python bench/search_quality.py --cranfield FOLDER                    # tuned on the collection's own titles and texts
    python bench/search_quality.py --cranfield FOLDER --pairs FILE       # tuned on a JSONL file with `title` and `abstract`

FOLDER holds corpus.jsonl (_id, title, text), queries.jsonl (_id, text) and qrels.tsv (query_id, corpus_id, code). Neither queries nor
judgements are trained on; with the collection's own pairs the documents are, as they are known when an index is built. A document of
code 1 to 4 gains 4 to 1, all others nothing; documents are ranked by L2 distance over the whole collection. Prints the figures and a 95%
interval of the difference (paired bootstrap over the queries), and adds them to bench/results/search_quality.json.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlaas import bundles, embedder, engine, samples
from mlaas.contracts import TrainRequest, parse

RESULTS = Path(__file__).parent / "results" / "search_quality.json"
DEPTH, DRAWS = 10, 10_000


def rows(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]


def collection(folder: Path) -> tuple[list[dict[str, Any]], list[tuple[str, dict[int, int]]]]:
    """The documents, and each query with the gains of the documents (by position) that are relevant to it."""
    corpus = [row for row in rows(folder / "corpus.jsonl") if row["text"].strip()]
    place = {row["_id"]: position for position, row in enumerate(corpus)}
    gains: dict[str, dict[int, int]] = defaultdict(dict)
    with (folder / "qrels.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if 1 <= (code := int(row["code"])) <= 4 and row["corpus_id"] in place:
                gains[row["query_id"]][place[row["corpus_id"]]] = 5 - code
    return corpus, [(row["text"], gains[row["_id"]]) for row in rows(folder / "queries.jsonl") if gains[row["_id"]]]


def ndcg(ranked: Sequence[int], gains: dict[int, int]) -> float:
    """Normalised discounted cumulative gain of the first DEPTH (Jarvelin and Kekalainen 2002), discount log2(rank + 1)."""
    discount = 1 / np.log2(np.arange(2, DEPTH + 2))
    found = np.array([gains.get(one, 0) for one in ranked[:DEPTH]])
    ideal = np.array(sorted(gains.values(), reverse=True)[:DEPTH])
    return float((found * discount[: len(found)]).sum() / (ideal * discount[: len(ideal)]).sum())


def searched(bundle: bundles.Bundle, corpus: Sequence[dict[str, Any]], queries: Sequence[tuple[str, dict[int, int]]]) -> Any:
    """nDCG and recall at DEPTH of each query, an array [queries, 2]."""
    model = engine.load(bundle)
    documents, _ = embedder.embed(model, [row["text"] for row in corpus])
    asked, _ = embedder.embed(model, [text for text, _ in queries])
    found = []
    for vector, (_, gains) in zip(asked, queries, strict=True):
        ranked = np.argsort(((documents - vector) ** 2).sum(axis=1), kind="stable")[:DEPTH].tolist()
        found.append((ndcg(ranked, gains), len(set(ranked) & gains.keys()) / len(gains)))
    return np.array(found)


def own_pairs(corpus: Sequence[dict[str, Any]], file: Path) -> Path:
    """The collection's titles, each with the text that follows it."""
    pairs = [{"title": row["title"], "abstract": row["text"].removeprefix(row["title"]).strip()} for row in corpus]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs if pair["abstract"] and pair["title"].strip()), "utf-8")
    return file


def request(options: argparse.Namespace) -> dict[str, Any]:
    """The data of the `train.requested` event."""
    return {
        "model": {"path": "minilm", "objective": "sentence-embedding"},
        "model_train": {
            "epochs": options.epochs,
            "batch_size": options.batch,
            "max_length": options.max_length,
            "seed": options.seed,
            "optimizer": {"init_lr": options.learning_rate, "num_warm_steps": 5},
        },
        "dataset": {"path": "pairs.jsonl", "text_column": "title", "pair_column": "abstract", "train_test_split": 0.05},
        "model_save": {"path": "bench"},
    }


def interval(before: Any, after: Any, seed: int) -> list[float]:
    """The 95% interval of the mean difference, by a paired bootstrap over the queries."""
    drawn = np.random.default_rng(seed).integers(0, len(before), (DRAWS, len(before)))
    return [round(float(each), 4) for each in np.quantile((after - before)[drawn].mean(axis=1), (0.025, 0.975))]


def main() -> int:
    """Search, tune, search again; 1 if the tuned model is not better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cranfield", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, help="JSONL with title and abstract; the collection's own by default")
    parser.add_argument("--pairs-limit", type=int, default=1400, help="pairs of --pairs that are used, the first ones")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text that are read, in training and search")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    from mlaas.training.export import export
    from mlaas.training.run import Sources, train

    began, checkpoint = time.monotonic(), samples.checkpoint("minilm")
    corpus, queries = collection(options.cranfield)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = own_pairs(corpus, folder / "pairs.jsonl")
        if options.pairs:
            pairs.write_text("".join(json.dumps(row) + "\n" for row in rows(options.pairs)[: options.pairs_limit]), "utf-8")
        untuned = dataclasses.replace(export(checkpoint, "sentence-embedding", folder / "untuned"), max_length=options.max_length)
        before = searched(untuned, corpus, queries)
        print(f"before: nDCG@{DEPTH} {before[:, 0].mean():.4f}, recall@{DEPTH} {before[:, 1].mean():.4f}", flush=True)
        sources = Sources(checkpoint=checkpoint, tokenizer=None, table=pairs)
        outcome = train(parse(TrainRequest, request(options)), sources, folder / "tuned", lambda report: None)
        after = searched(outcome.bundle, corpus, queries)
    difference = float((after - before)[:, 0].mean())
    print(
        f"after {outcome.dataset['samples_train']} pairs: nDCG@{DEPTH} {after[:, 0].mean():.4f} ({difference:+.4f}, 95% interval "
        f"{interval(before[:, 0], after[:, 0], options.seed)}), recall@{DEPTH} {after[:, 1].mean():.4f}"
    )
    record = {
        "pairs": options.pairs.name if options.pairs else "the collection's own titles and texts",
        "pairs_train": outcome.dataset["samples_train"],
        "documents": len(corpus),
        "queries": len(queries),
        "before": {"ndcg_at_10": round(float(before[:, 0].mean()), 4), "recall_at_10": round(float(before[:, 1].mean()), 4)},
        "after": {"ndcg_at_10": round(float(after[:, 0].mean()), 4), "recall_at_10": round(float(after[:, 1].mean()), 4)},
        "difference": round(difference, 4),
        "interval_95": interval(before[:, 0], after[:, 0], options.seed),
        "held_out_pairs": {name: value for name, value in outcome.evaluation.items() if isinstance(value, int | float)},
        "tokens_per_second": outcome.dataset["tokens_per_second"],
        "request": request(options),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "seconds": round(time.monotonic() - began, 1),
    }
    recorded = json.loads(options.results.read_text()) if options.results.exists() else []
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(
        json.dumps([*(one for one in recorded if one["request"] != record["request"] or one["pairs"] != record["pairs"]), record], indent=2)
        + "\n"
    )
    return 0 if difference > 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
