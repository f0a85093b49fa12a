"""Which rows an epoch holds and in which batches; which words are hidden."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mlaas.training.masking import IGNORED, Chunk, Masker
from mlaas.training.sampling import ClassSampler, grouped_batches, quotas
from mlaas.training.scores import classification_figures, confusion

MASK, WORDS = 4, 100


def test_an_epoch_of_balanced_classes_is_every_row_once() -> None:
    sampler = ClassSampler([0, 1, 2] * 7, 0.5, seed=0)
    for _ in range(2):
        assert sorted(sampler.epoch().tolist()) == list(range(21))


def test_tempering_gives_a_rare_class_more_and_a_dominating_one_less() -> None:
    assert quotas([900, 100], 0.5) == [750, 250]
    assert quotas([900, 100], 1.0) == [900, 100]
    assert quotas([900, 100], 0.0) == [500, 500]


@pytest.mark.parametrize("counts", [[12503, 43, 2, 1], [3, 3, 1], [5, 0, 2]])
def test_an_epoch_has_about_as_many_rows_as_the_data_and_no_class_is_lost(counts: list[int]) -> None:
    shared = quotas(counts, 0.5)
    assert sum(counts) <= sum(shared) <= sum(counts) + len(counts)
    assert all((quota > 0) == (count > 0) for quota, count in zip(shared, counts, strict=True))


def test_a_class_that_is_subsampled_shows_all_its_rows_over_the_epochs_before_any_again() -> None:
    sampler = ClassSampler([0] * 90 + [1] * 10, 0.0, seed=1)
    drawn = Counter(index for _ in range(9) for index in sampler.epoch().tolist() if index < 90)
    assert set(drawn.values()) == {5}


def test_batches_hold_every_index_once_and_little_padding() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(3, 90, size=1000).tolist()
    batches = grouped_batches(np.arange(1000), lengths, 16, np.random.default_rng(1))
    assert sorted(index for batch in batches for index in batch.tolist()) == list(range(1000))
    assert max(map(len, batches)) == 16
    padded = sum(max(lengths[index] for index in batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    widths = [max(lengths[index] for index in batch) for batch in batches]
    assert widths != sorted(widths, reverse=True), "the order of the batches is shuffled"


def test_batches_are_the_same_for_a_seed() -> None:
    first, again, other = (
        [batch.tolist() for batch in grouped_batches(np.arange(50), [1] * 50, 8, np.random.default_rng(seed))] for seed in (1, 1, 2)
    )
    assert first == again != other


def chunk_of(*word_lengths: int) -> Chunk:
    """[CLS] words [SEP], all tokens different from the mask."""
    words = [number for number, length in enumerate(word_lengths) for _ in range(length)]
    return Chunk((2, *(WORDS + place for place in range(len(words))), 3), (None, *words, None))


@pytest.fixture
def masker() -> Masker:
    return Masker(mask_id=MASK, vocabulary=np.arange(1000, 2000))


def test_words_are_hidden_whole_and_never_a_special_token(masker: Masker) -> None:
    draw = np.random.default_rng(0)
    chunk = chunk_of(*([1, 2, 3, 4] * 10))
    for _ in range(100):
        ids, targets = masker.hide(chunk, draw)
        for word in set(chunk.words) - {None}:
            places = [place for place, each in enumerate(chunk.words) if each == word]
            assert len({targets[place] == IGNORED for place in places}) == 1
            assert len({ids[place] == MASK for place in places}) == 1
        assert targets[0] == targets[-1] == IGNORED
        assert (ids[0], ids[-1]) == (2, 3)
        assert all(target in (IGNORED, token) for target, token in zip(targets, chunk.ids, strict=True))


def test_a_tenth_of_the_tokens_is_hidden_of_which_80_10_10_of_100_become_mask_random_or_stay(masker: Masker) -> None:
    draw = np.random.default_rng(0)
    chunk = chunk_of(*([1] * 60 + [2] * 20))
    fates: Counter[str] = Counter()
    for _ in range(2000):
        ids, targets = masker.hide(chunk, draw)
        for place, target in enumerate(targets):
            if target != IGNORED:
                fates["mask" if ids[place] == MASK else "same" if ids[place] == target else "random"] += 1
    hidden = sum(fates.values())
    assert hidden / (2000 * 100) == pytest.approx(0.1, abs=0.005)
    assert {fate: count / hidden for fate, count in fates.items()} == pytest.approx({"mask": 0.8, "random": 0.1, "same": 0.1}, abs=0.02)


def test_a_text_of_one_long_word_still_has_something_to_predict(masker: Masker) -> None:
    _, targets = masker.hide(chunk_of(5), np.random.default_rng(0))
    assert sum(target != IGNORED for target in targets) == 5


def test_figures_of_a_classifier_are_those_worked_out_by_hand() -> None:
    figures = classification_figures(confusion([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 2], 3), ["A", "B", "[NoSite]"], unnamed="[NoSite]")
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert figures["accuracy_named"] == pytest.approx(3 / 5)
    assert figures["confusion"] == {"labels": ["A", "B", "[NoSite]"], "matrix": [[2, 1, 0], [1, 1, 0], [0, 0, 1]]}
    assert figures["per_class"]["A"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


def test_macro_f1_leaves_out_classes_without_held_out_rows_and_accuracy_named_needs_its_label() -> None:
    figures = classification_figures(confusion([0, 1], [0, 1], 3), ["A", "B", "C"], unnamed="[NoSite]")
    assert figures["macro_f1"] == 1.0
    assert "accuracy_named" not in figures
