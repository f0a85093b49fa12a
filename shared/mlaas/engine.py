"""ONNX Runtime: a bundle becomes a model that turns texts into arrays, in batches that hold a bounded number of tokens.

OpenVINO and CUDA take long to load: where a caller waits, the plain CPU provider answers in float32 until they are ready. They also have
to answer as that provider does before they answer anybody (`provider_switch`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import callers, limits, metrics, precision, provider_switch, sessions, timing, tokens
from .batching import Batcher, Part, Work, grouped
from .bundles import Bundle, not_loadable
from .errors import InvalidRequest
from .sessions import CPU
from .tokens import Encoded

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Batch", "Model", "load", "suits"]

log = logging.getLogger(__name__)

OUTPUT_BYTES = 256 * 1024**2  # of one batch's widest output: a row per token and a column per vocabulary entry adds up fast
FIRST_ANSWER_SECONDS = 2.0  # that a faster provider waits for the answer to the request that loaded the model
SENT_SECONDS = 0.1  # and until that is written: OpenVINO holds Python's lock while it loads

WRITING = "causal-lm"

T = TypeVar("T")
Batch = tuple[list[int], NDArray[Any], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded model. Any number of threads may use it at once.

    `inputs` and `outputs` are the graph's: name to element type, and name to shape (an int, or a name where the size varies).
    `variant` is the one that `session` computes, on `provider`; `faster` holds the model that takes over, once it is ready.
    `past` holds heads and width of each of a language model's inputs for what it has read before; empty for other models.
    """

    bundle: Bundle
    tokenizer: Any  # a tokenizers.Tokenizer, or the NgramTokenizer that stands in its place
    provider: str
    variant: str
    inputs: dict[str, str]
    outputs: dict[str, list[int | str]]
    pad_id: int
    token_budget: int  # 0: as many as suit the provider
    session: onnxruntime.InferenceSession = field(repr=False)
    past: dict[str, tuple[int, int]] = field(default_factory=dict)
    batcher: Batcher[Encoded] = field(default_factory=Batcher, repr=False)
    faster: list[Model] = field(default_factory=list, repr=False)

    @property
    def computing(self) -> Model:
        """The model that answers requests from now on: what loaded fastest, until what computes faster is ready.

        A request keeps the one that it began with, so that all of its answer is computed by one session.
        """
        return self.faster[-1] if self.faster else self

    def on(self, session: onnxruntime.InferenceSession, variant: str) -> Model:
        """The same model, computed by another session."""
        return replace(self, session=session, provider=session.get_providers()[0], variant=variant, faster=[])

    def encode(self, texts: Sequence[str], *, pairs: Sequence[str] | None = None, offsets: bool = False) -> list[Encoded]:
        """The texts as tokens, each with its text of `pairs` if they are given, cut to the model's maximum length.

        An empty text is its special tokens, or one padding token.
        """
        with timing.span("tokenize"):
            encodings = self.tokenizer.encode_batch(list(texts) if pairs is None else list(zip(texts, pairs, strict=True)))
            return [
                Encoded(
                    ids=encoding.ids or [self.pad_id],
                    type_ids=encoding.type_ids or [0],
                    offsets=encoding.offsets if offsets else [],
                    truncated=bool(encoding.overflowing),
                )
                for encoding in encodings
            ]

    def run(self, encoded: Sequence[Encoded], *, output: str | None = None) -> Iterator[Batch]:
        """Run the graph, a batch at a time; `output` is the graph's first unless named.

        Yields which of `encoded` the batch holds (b indices; short texts come first), the output (first axis b, padding
        included) and the attention mask (b, length; 1 where there is a token, 0 where there is padding).
        """
        for indices, (values,), mask in self.run_all(encoded, (output or next(iter(self.outputs)),)):
            yield indices, values, mask

    def run_all(self, encoded: Sequence[Encoded], names: Sequence[str]) -> Iterator[Part]:
        """Run the graph as `run` does, for several outputs: yields them in the order of `names`.

        Requests that run at the same time share batches. Raises Overloaded where too much is waiting, Unavailable where the
        request's caller has left.
        """
        lengths = [len(one.ids) for one in encoded]
        budget = min(self._budget(name) for name in names)
        for portion in _portions(lengths, budget):
            work = Work(
                rows=[encoded[index] for index in portion],
                lengths=[lengths[index] for index in portion],
                budget=budget,
                key=(id(self), *names),
                compute=partial(self._compute, names),
            )
            with timing.span("infer"):
                parts = self.batcher.run(work)
            for indices, values, mask in parts:
                yield Part([portion[index] for index in indices], values, mask)

    def _compute(self, names: Sequence[str], batch: Sequence[Encoded]) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
        feed, mask = self._feed(batch)
        _count(mask, self.variant, self.provider)
        return self.session.run(list(names), feed), mask

    def empty_past(self, rows: int) -> dict[str, NDArray[Any]]:
        """What a language model has read before the first token: nothing, (rows, heads, 0, width) for each of its inputs."""
        return {name: np.zeros((rows, heads, 0, width), dtype=_DTYPES[self.inputs[name]]) for name, (heads, width) in self.past.items()}

    def warm_up(self) -> None:
        """Run one tiny batch, so that the first request does not pay for what is set up on first use."""
        for _ in self.run(self.encode(["warm up"])):
            pass

    def _budget(self, output: str) -> int:
        """Tokens that a batch may hold so that neither the budget nor the memory for `output` is exceeded."""
        shape = self.outputs[output]
        width = shape[-1] if len(shape) == 3 else 1
        if not isinstance(width, int):
            width = self.bundle.config.get("vocab_size") or 1
        return max(1, min(self.token_budget or provider_switch.token_budget(self.provider), OUTPUT_BYTES // (4 * width)))

    def _feed(self, batch: Sequence[Encoded]) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        length = max(len(one.ids) for one in batch)
        ids = np.full((len(batch), length), self.pad_id, dtype=np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, one in enumerate(batch):
            ids[row, : len(one.ids)] = one.ids
            types[row, : len(one.ids)] = one.type_ids
            mask[row, : len(one.ids)] = 1
        positions = np.broadcast_to(np.arange(length, dtype=np.int64), ids.shape)
        given = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": types,
            "position_ids": positions,
            **self.empty_past(len(batch)),
        }
        return {name: given[name].astype(_DTYPES[kind], copy=False) for name, kind in self.inputs.items()}, mask


_DTYPES: dict[str, Any] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
_PAST = "past_key_values."
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def load(
    bundle: Bundle,
    *,
    variant: str = precision.PUBLISHED,
    exactly: bool = False,
    tokenizer: Path | None = None,
    threads: int = 0,
    token_budget: int = 0,
    batcher: Batcher[Encoded] | None = None,
) -> Model:
    """The bundle's model, ready to run. `tokenizer` (a tokenizer.json, or the folder that holds one) replaces the bundle's own.

    `variant` is one that the bundle has; unless it is to be `exactly` that, fp32 answers where it does not load, and until it is loaded.
    `threads` is per session, 0 means one per core that the container may use; `token_budget` counts the tokens of one batch, padding
    included, 0 means what suits the provider; `batcher` says how requests share batches. Raises InvalidRequest where the files are not a
    model that can be served. External data of a graph are read from the graph's own folder only: ONNX Runtime refuses absolute paths, `..`
    and symbolic links that lead out of it.
    """
    with timing.span("load"):
        opened = _meanwhile(lambda: tokens.open_tokenizer(tokenizer or bundle.tokenizer, bundle, own=tokenizer is None))
        import onnxruntime

        available, flags = onnxruntime.get_available_providers(), sessions.cpu_flags()
        usual = [each for each in sessions.providers(available, flags) if suits(bundle, each[0])]
        special = [] if variant == precision.PUBLISHED else sessions.providers(available, flags, variant)
        later = [each for each in special or usual if each != CPU]
        if exactly and not special:
            raise not_loadable(f"nothing here computes its variant {variant}", "Leave `variant` out.")
        session, loaded = _on_cpu(bundle, threads, variant if special and not later else precision.PUBLISHED, exactly)
        words = opened()
        sharing = batcher or Batcher()
        sharing.parallel = limits.cpus()
        inputs = {node.name: node.type for node in session.get_inputs()}
        unknown = [name for name, kind in inputs.items() if (name not in _INPUTS and not name.startswith(_PAST)) or kind not in _DTYPES]
        if unknown or "input_ids" not in inputs:
            raise not_loadable(
                "the graph takes other inputs than a text encoder's", f"Export a graph with the inputs {', '.join(_INPUTS)}."
            )
        model = Model(
            bundle=bundle,
            tokenizer=words,
            provider=session.get_providers()[0],
            variant=loaded,
            inputs=inputs,
            outputs={node.name: list(node.shape) for node in session.get_outputs()},
            pad_id=tokens.pad_id(words, bundle),
            token_budget=token_budget,
            session=session,
            batcher=sharing,
            past={node.name: (node.shape[1], node.shape[3]) for node in session.get_inputs() if node.name.startswith(_PAST)},
        )
    log.info("engine.loaded", extra={"fields": {"model": bundle.digest, "variant": model.variant, "provider": model.provider}})
    if later:
        named = variant if special else precision.PUBLISHED
        return _moved(model, partial(sessions.open_session, bundle, threads, later, named), named, exactly)
    return model


def _meanwhile(work: Callable[[], T]) -> Callable[[], T]:
    """Begin `work` in a thread. What is returned waits for its end, and returns or raises what it did.

    ONNX Runtime opens a session without holding Python's lock: a tokenizer is read in that time.
    """
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # raised where it is waited for
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> T:
        thread.join()
        for error in failed:
            raise error
        return done[0]

    return result


def suits(bundle: Bundle, provider: str) -> bool:
    """Whether a provider is for such a model: counting n-grams is for the CPU, and what a text began with not for OpenVINO."""
    return provider == CPU[0] or not (tokens.of_ngrams(bundle) or (provider == precision.OPENVINO and bundle.objective == WRITING))


def _on_cpu(bundle: Bundle, threads: int, variant: str, exactly: bool) -> tuple[onnxruntime.InferenceSession, str]:
    """A session of the plain CPU provider, and which variant it computes: fp32 where `variant` may be another and does not load."""
    try:
        return sessions.open_session(bundle, threads, [CPU], variant), variant
    except InvalidRequest:
        if exactly or variant == precision.PUBLISHED:
            raise
    return sessions.open_session(bundle, threads, [CPU]), precision.PUBLISHED


def _moved(model: Model, opening: Callable[[], onnxruntime.InferenceSession], variant: str, exactly: bool) -> Model:
    """The model on what computes faster: at once where it has to be `exactly` that or nobody waits, else when it is ready."""
    if (caller := callers.current()) is not None and not exactly:
        threading.Thread(target=_move_later, args=(caller, model, opening, variant), daemon=True).start()
    elif not provider_switch.move(model, opening, variant) and exactly:
        raise not_loadable(f"its variant {variant} does not load here, or computes something else", "Leave `variant` out.")
    else:
        return model.computing
    return model


def _move_later(caller: callers.Caller, model: Model, opening: Callable[[], onnxruntime.InferenceSession], variant: str) -> None:
    """Move once the caller has the first answer, which needs the processor for itself."""
    caller.answered.wait(FIRST_ANSWER_SECONDS)
    time.sleep(SENT_SECONDS)
    provider_switch.move(model, opening, variant)


def _count(mask: NDArray[np.int64], variant: str, provider: str) -> None:
    texts = len(mask)
    metrics.TEXTS.add(variant, provider, by=texts)
    metrics.BATCH_TEXTS.observe(texts)
    metrics.BATCH_TOKENS.observe(mask.size)


def _portions(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of `lengths`, shortest first, in parts of `budget` tokens at the most, or of one text.

    What is computed but not yet taken is no more than that, and a request of many texts lets others in between its parts.
    """
    return grouped(lengths, lambda _rows, tokens, longer: tokens + longer <= budget)
