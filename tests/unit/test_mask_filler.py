"""Masked language modelling on tiny models that know which word stood between which two."""

import dataclasses

import pytest

from mlaas import engine, mask_filler
from mlaas.errors import InvalidRequest
from mlaas.testing import tiny_models


def load(folder, *arguments, **options):
    return engine.load(tiny_models.mask_filler(folder / "model", *arguments, **options))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(tmp_path_factory.mktemp("wordpiece"), max_length=16)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    return load(tmp_path_factory.mktemp("byte_level"), byte_level=True)


def best(answer):
    return [candidates[0].token for candidates in answer.masks]


def test_every_mask_of_every_text_is_filled(model):
    texts = ["the [MASK] quark is the [MASK] known [MASK]", "dark [MASK] interacts", "the top quark is the heaviest known [MASK]"]
    answers = mask_filler.fill_masks(model, texts)
    assert [best(answer) for answer in answers] == [["top", "heaviest", "particle"], ["matter"], ["particle"]]
    assert [answer.filled for answer in answers] == [
        "the top quark is the heaviest known particle",
        "dark matter interacts",
        "the top quark is the heaviest known particle",
    ]


def test_the_rest_of_the_text_keeps_its_characters(model):
    (answer,) = mask_filler.fill_masks(model, ["Università:\tThe [MASK]  QUARK\r\n"])
    assert answer.filled == "Università:\tThe top  QUARK\r\n"


def test_candidates_come_likeliest_first_with_their_probabilities(model):
    (answer,) = mask_filler.fill_masks(model, ["the [MASK] quark"], top_k=3)
    (candidates,) = answer.masks
    probabilities = [one.probability for one in candidates]
    assert len(candidates) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[0] > 0.9 > sum(probabilities[1:])


def test_more_candidates_than_the_vocabulary_has_gives_it_all_without_special_tokens(model):
    (candidates,) = mask_filler.fill_masks(model, ["the [MASK] quark"], top_k=1000)[0].masks
    tokens = {one.token for one in candidates}
    assert len(candidates) == len(tokens) == model.tokenizer.get_vocab_size() - len(tiny_models.SPECIALS)
    assert tokens.isdisjoint(tiny_models.SPECIALS)
    assert 0.9 < sum(one.probability for one in candidates) < 1


def test_outputs_beyond_the_vocabulary_are_no_candidates(model):
    """Exports may pad the vocabulary to a round size; here the tokenizer lacks the model's last word."""
    words = sorted({word for sentence in tiny_models.SENTENCES for word in sentence.split()})[:-1]
    fewer = dataclasses.replace(model, tokenizer=tiny_models.wordpiece(words))
    assert fewer.tokenizer.get_vocab_size() == model.tokenizer.get_vocab_size() - 1
    (candidates,) = mask_filler.fill_masks(fewer, ["the [MASK] quark"], top_k=1000)[0].masks
    assert len(candidates) == fewer.tokenizer.get_vocab_size() - len(tiny_models.SPECIALS)


def test_a_piece_that_continues_a_word_is_joined_to_it(tmp_path):
    model = load(tmp_path, ["the quants fly", "fly"], vocabulary=["the quant fly"])
    (answer,) = mask_filler.fill_masks(model, ["the quant [MASK] fly"])
    assert best(answer) == ["##s"]
    assert answer.filled == "the quants fly"


def test_a_byte_level_tokens_text_is_shown_without_its_mark_and_written_with_its_space(roberta):
    texts = ["the <mask> quark is\n<mask> heaviest known<mask>", "dark <mask>"]
    answers = mask_filler.fill_masks(roberta, texts)
    assert best(answers[0])[0] == "top"
    assert best(answers[0])[2] == "particle"
    assert answers[0].filled.startswith("the top quark is\n")
    assert answers[0].filled.endswith(" heaviest known particle")
    assert best(answers[1]) == ["matter"]


def test_a_byte_level_token_that_begins_no_word_is_joined(tmp_path):
    model = load(tmp_path, ["the quark, it is"], byte_level=True)
    (answer,) = mask_filler.fill_masks(model, ["the quark <mask> it is"])
    assert (best(answer), answer.filled) == ([","], "the quark, it is")


def test_the_common_mask_is_understood_where_the_models_own_differs(roberta):
    own, common = mask_filler.fill_masks(roberta, ["the <mask> quark", "the [MASK] quark"])
    assert own == common
    assert own.filled == "the top quark"


def test_a_text_without_a_mask_is_refused_by_its_place_with_the_models_own_mask(model, roberta):
    for tested, mask in ((model, "[MASK]"), (roberta, "<mask>")):
        with pytest.raises(InvalidRequest, match="no mask") as caught:
            mask_filler.fill_masks(tested, [f"the {mask} quark", "the quark"])
        assert caught.value.field == "predict_input.input_text.1"
        assert mask in caught.value.remedy


def test_a_mask_beyond_the_models_maximum_is_refused_with_the_limit(model):
    text = "the [MASK] quark " + "is known " * 8 + "[MASK]"
    with pytest.raises(InvalidRequest, match="maximum length of 16 tokens") as caught:
        mask_filler.fill_masks(model, [text])
    assert caught.value.field == "predict_input.input_text.0"


def test_a_long_text_whose_masks_are_all_read_is_answered_and_says_that_it_was_cut(model):
    text = "the [MASK] quark " + "is known " * 20
    (answer,) = mask_filler.fill_masks(model, [text])
    assert (best(answer), answer.truncated) == (["top"], True)
    assert answer.filled == text.replace("[MASK]", "top")


def test_a_model_that_fills_no_masks_is_refused_with_where_to_send_it(tmp_path):
    with pytest.raises(InvalidRequest, match="does not fill masks") as caught:
        mask_filler.fill_masks(engine.load(tiny_models.classifier(tmp_path / "model")), ["[MASK]"])
    assert caught.value.field == "model.objective"
    assert "classify" in caught.value.remedy


def test_a_tokenizer_without_a_mask_token_is_refused(model, tmp_path):
    bundle = dataclasses.replace(model.bundle, mask_token="<absent>")
    assert best(mask_filler.fill_masks(dataclasses.replace(model, bundle=bundle), ["the [MASK] quark"])[0]) == ["top"]
    from tokenizers import Tokenizer, models

    bare = dataclasses.replace(model, tokenizer=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(InvalidRequest, match="no mask token"):
        mask_filler.fill_masks(bare, ["[MASK]"])
