"""Embeddings of a tiny model whose token vectors are known."""

import json

import numpy as np
import pytest

from mlaas import embedder, engine
from mlaas.errors import InvalidRequest
from mlaas.testing import tiny_models

TEXTS = ["dark matter", "the top quark is the heaviest known particle", "gravity", "dark matter"]


def load(folder, **options):
    return engine.load(tiny_models.embedder(folder / "model", **options))


def token_vectors(model):
    """The model's own table of vectors (vocabulary, d), read through the graph."""
    size = model.tokenizer.get_vocab_size()
    ids = np.arange(size, dtype=np.int64)[:, None]
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return model.session.run(["last_hidden_state"], feed)[0][:, 0]


def test_the_mean_is_over_the_tokens_and_not_over_the_padding(tmp_path):
    model = load(tmp_path, normalize=False)
    vectors, truncated = embedder.embed(model, TEXTS)
    table = token_vectors(model)
    expected = [table[encoded.ids].mean(axis=0) for encoded in model.encode(TEXTS)]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
    assert (vectors.dtype, vectors.shape, truncated) == (np.float32, (4, 16), [False] * 4)


def test_cls_pooling_takes_the_first_token(tmp_path):
    model = load(tmp_path, pooling="cls", normalize=False)
    (encoded,) = model.encode(["dark matter"])
    vectors, _ = embedder.embed(model, ["dark matter"])
    np.testing.assert_array_equal(vectors[0], token_vectors(model)[encoded.ids[0]])
    assert not np.array_equal(vectors, embedder.embed(load(tmp_path / "mean", normalize=False), ["dark matter"])[0])


def test_normalised_vectors_have_length_one(tmp_path):
    vectors, _ = embedder.embed(load(tmp_path), [*TEXTS, ""])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_a_vector_of_length_zero_stays_what_it_is():
    assert embedder._normalised(np.zeros((1, 3), dtype=np.float32)).tolist() == [[0, 0, 0]]


def test_texts_that_share_words_are_nearer_than_texts_that_do_not(tmp_path):
    (query, near, far), _ = embedder.embed(load(tmp_path), ["dark matter", "matter is dark", "the large hadron collider"])
    assert np.linalg.norm(query - near) < np.linalg.norm(query - far)


def test_the_order_is_that_of_the_texts_whatever_the_batches(tmp_path):
    bundle = tiny_models.embedder(tmp_path / "model")
    together, _ = embedder.embed(engine.load(bundle), TEXTS)
    alone, _ = embedder.embed(engine.load(bundle, token_budget=1), TEXTS)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_array_equal(together[0], together[3])


def test_a_vector_for_each_text_is_taken_as_it_is(tmp_path):
    vectors, _ = embedder.embed(load(tmp_path / "sentence", sentence_level=True, normalize=False), TEXTS)
    tokens = load(tmp_path / "tokens", normalize=False)
    sums = [token_vectors(tokens)[encoded.ids].sum(axis=0) for encoded in tokens.encode(TEXTS)]
    np.testing.assert_allclose(vectors, sums, rtol=1e-5, atol=1e-5)


def test_a_text_longer_than_the_model_reads_says_so(tmp_path):
    _, truncated = embedder.embed(load(tmp_path, max_length=8), ["dark", "dark " * 7])
    assert truncated == [False, True]


@pytest.mark.parametrize("build", ["classifier", "mask_filler"])
def test_a_model_that_gives_only_logits_is_refused_with_what_to_name_instead(tmp_path, build):
    with pytest.raises(InvalidRequest, match="gives no embedding") as caught:
        embedder.embed(engine.load(getattr(tiny_models, build)(tmp_path / "model")), ["dark"])
    assert caught.value.field == "model.objective"
    assert "no-objective" in caught.value.remedy


def test_vectors_are_listed_exactly_and_with_half_of_the_digits(tmp_path):
    vectors = (np.random.default_rng(0).normal(size=(32, 384)) / 20).astype(np.float32)
    listed = embedder.listed(vectors[:, ::2])
    assert np.array_equal(np.asarray(listed, dtype=np.float32), vectors[:, ::2])
    assert len(json.dumps(listed)) < 0.65 * len(json.dumps(vectors[:, ::2].tolist()))
