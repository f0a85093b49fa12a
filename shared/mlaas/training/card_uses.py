"""What a model is for and where its limits are, said from what is known of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["intended_use", "limits"]

FEW = 10  # held-out rows of a class below which its figures say little
COARSE = 200  # held-out rows below which one row is half a point of accuracy
WEAK = 0.5  # F1 below which a class is not to be relied on
NAMED = 20  # classes that are named at the most
WINDOWED = frozenset({"token-classification", "question-answering"})

USES = {
    "text-classification": "It puts a text into one of the classes below; `mlaas classify` and the function `classify` serve it.",
    "masked-lm": "It proposes tokens for the masks of a text of the kind it was trained on; `mlaas fill-mask` and the function `fill_mask` "
    "serve it. It is also a start for the training of other objectives on such texts.",
    "token-classification": "It finds entities of the types below in a text; `mlaas ner` and the function `ner` serve it.",
    "question-answering": "It finds the words of a context that answer a question; `mlaas answer` and the function `answer` serve it.",
    "sentence-embedding": "It turns texts into vectors whose distance says how near they are in meaning, for indexes and search; "
    "the functions `embed`, `index` and `search` serve it.",
    "no-objective": "It turns texts into vectors whose distance says how near they are in meaning, for indexes and search; "
    "the functions `embed`, `index` and `search` serve it.",
    "causal-lm": "It continues texts of the kind it was trained on; `mlaas generate` and the function `generate` serve it.",
    "next-sentence-prediction": "It says whether the second of two texts follows the first; the function `classify` serves it with "
    "`predict_input.text_pair`.",
}
STOPPED = {"deadline": "Its training was ended by its deadline.", "early": "Its training was stopped early: it no longer improved."}
OF_OBJECTIVE = {
    "text-classification": "Every text gets a class, also one that belongs to none of them: look at the probability, or set a threshold.",
    "token-classification": "Types of entities that the training data does not tag are not found.",
    "question-answering": "Answers are words of the context; nothing is looked up or made up beyond it, and an answer may be wrong.",
    "masked-lm": "A likely word is no true statement.",
    "causal-lm": "What it writes may be wrong, and may repeat what stands in its training texts.",
}


def intended_use(objective: str) -> str:
    """One or two sentences."""
    return USES.get(objective, "It is served by the platform's functions.")


def limits(figures: Mapping[str, Any], classes: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """One sentence for each limit that is known; `classes` holds support and F1 of each."""
    held_out = figures["data"].get("samples_test")
    if held_out:
        yield f"The figures are of {held_out:,} held-out rows of the same data set. Texts from elsewhere or of another time may do worse."
        if held_out < COARSE:
            yield f"With so few held-out rows one of them is {100 / held_out:.2g} points of a percentage."
    elif not figures["metrics"]:
        yield "It was exported as it is and not evaluated here."
    few = [name for name, one in classes.items() if one["support"] < FEW]
    weak = [name for name, one in classes.items() if one["support"] >= FEW and one["f1"] < WEAK]
    if few:
        yield f"Classes with fewer than {FEW} held-out rows, whose figures say little: {_named(few)}."
    if weak:
        yield f"Classes with an F1 below {WEAK}: {_named(weak)}."
    if figures["architecture"] != "ngrams" and figures["objective"] not in WINDOWED:
        yield f"Of a longer text only the first {figures['max_length']:,} tokens are read."
    if stopped := figures["training"].get("stopped"):
        yield {"deadline": "Its training was ended by its deadline.", "early": "Its training was stopped early: it no longer improved."}[
            stopped
        ]
    if said := OF_OBJECTIVE.get(figures["objective"]):
        yield said
    if figures["licence"]["id"] == "unknown":
        yield "Its licence is unknown: neither the request nor the base model's files name one. Find out before you pass it on."
    yield "Nobody has looked at how it treats groups of people, nor for personal data in what it learnt from."


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
