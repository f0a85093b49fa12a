"""Typing errors for synthetic texts, made by the library `typo` and driven by the caller's random generator.

The library's StrErrer seeds and reads Python's global generator (`random.seed(seed)` in its constructor; even without
a seed it reseeds it from the clock), so it cannot be driven by a seed without changing everybody else's random
numbers. Its two modules are therefore loaded a second time under private names, in which the name `random` is a
delegate to the generator of the call at hand. Neither the global generator nor the library as others import it changes.
"""

from __future__ import annotations

import importlib.util
import random
import re
import threading
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

from ..errors import InvalidRequest, NotFound

__all__ = ["SLIPS", "with_typos"]

# Methods of StrErrer, each one slip within a word that changes its length by one character at most.
SLIPS = ("char_swap", "missing_char", "extra_char", "nearby_char", "similar_char", "repeated_char", "unichar", "random_space")
_WORD = re.compile(r"[A-Za-z]{4,}")
_ACRONYM = re.compile(r"(?=.*[A-Z]{3}).{4,6}")  # INFN, INFM, INAF, TIFPA and the like, also behind a footnote letter


class _Dice(threading.local):
    """Stands for the module `random` in the private copies: same draws, the calling thread's generator."""

    rng: random.Random

    def seed(self, _: object) -> None:
        """Nothing: the caller has seeded its generator."""

    def randint(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return self.rng.randint(low, high)

    def choice(self, options: Any) -> Any:
        """One of `options`."""
        return self.rng.choice(options)


_DICE = _Dice()


def with_typos(text: str, rng: random.Random, rate: float) -> str:
    """`text` in which each word gets one slip with probability `rate`; the same for the same state of `rng`.

    Figures, words of up to three letters and acronyms stay, since they are what tells RM1 from RM2, or INFN from INFM.
    Raises InvalidRequest if `rate` is not from 0 to 1, NotFound if the library is not installed.
    """
    if not 0 <= rate <= 1:
        raise InvalidRequest("the rate of typing errors must be from 0 to 1", field="rate", remedy="Give a share of words, such as 0.1.")
    if rate == 0:
        return text
    errer = _errer()
    _DICE.rng = rng

    def slip(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() >= rate or _ACRONYM.fullmatch(word):
            return word
        return str(getattr(errer(word), rng.choice(SLIPS))().result)

    return _WORD.sub(slip, text)


@lru_cache(maxsize=1)
def _errer() -> Callable[[str], Any]:
    layout = _private_copy("typo.keyboardlayouts.en_default")
    module = _private_copy("typo.Errer")
    vars(module)["en_default"] = layout
    errer: Callable[[str], Any] = module.StrErrer
    return errer


def _private_copy(name: str) -> ModuleType:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.loader is None:
        raise NotFound(
            "the library `typo` is not installed",
            field="typo_rate",
            remedy='pip install "mlaas[train]" or "mlaas[samples]", or ask for no typing errors.',
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module)["random"] = _DICE
    return module
