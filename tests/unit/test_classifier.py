"""Text classification on a tiny model whose answers follow from the words of a text."""

import dataclasses

import numpy as np
import pytest

from mlaas import classifier, engine
from mlaas.errors import InvalidRequest
from mlaas.testing import tiny_models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return engine.load(tiny_models.classifier(tmp_path_factory.mktemp("classifier") / "model", max_length=16))


def test_each_text_gets_its_label_in_the_order_of_the_texts(model):
    texts = ["INFN CNAF, Bologna", "florence: the top quark is in florence", "", "Laboratori di Frascati"]
    assert [one.label for one in classifier.classify(model, texts)] == ["CNAF", "FI", "[NoSite]", "LNF"]


def test_scores_are_the_softmax_of_the_logits(model):
    (answer,) = classifier.classify(model, ["frascati"], top_k=4)
    exponents = np.exp([1, 4, 0, 0])  # one for the first label, four for a word of the second
    expected = dict(zip(["[NoSite]", "LNF", "CNAF", "FI"], exponents / exponents.sum(), strict=True))
    assert {one.label: one.score for one in answer.scores} == pytest.approx(expected)
    assert [one.label for one in answer.scores] == ["LNF", "[NoSite]", "CNAF", "FI"]
    assert answer.score == answer.scores[0].score


@pytest.mark.parametrize(("top_k", "given"), [(1, 1), (3, 3), (1000, 4)])
def test_top_k_labels_are_given_and_no_more_than_there_are(model, top_k, given):
    assert len(classifier.classify(model, ["frascati"], top_k)[0].scores) == given


def test_labels_below_the_threshold_are_left_out_and_none_may_remain(model):
    some, none = (classifier.classify(model, ["frascati"], 4, threshold)[0] for threshold in (0.04, 0.99))
    assert [one.label for one in some.scores] == ["LNF", "[NoSite]"]
    assert (none.label, none.score, none.scores) == (None, None, [])


def test_a_text_longer_than_the_model_reads_says_so_and_is_judged_by_its_beginning(model):
    cut, whole = classifier.classify(model, ["frascati " + "infn " * 20 + "florence florence", "florence"])
    assert (cut.label, cut.truncated) == ("LNF", True)
    assert (whole.label, whole.truncated) == ("FI", False)


def test_a_label_without_a_name_is_numbered(model):
    unnamed = dataclasses.replace(model, bundle=dataclasses.replace(model.bundle, labels=("[NoSite]",)))
    assert classifier.classify(unnamed, ["frascati"])[0].label == "LABEL_1"


def test_a_model_for_several_labels_at_once_scores_each_by_itself(model):
    config = {**model.bundle.config, "problem_type": "multi_label_classification"}
    several = dataclasses.replace(model, bundle=dataclasses.replace(model.bundle, config=config))
    (answer,) = classifier.classify(several, ["frascati florence"], 4)
    assert [one.score for one in answer.scores] == pytest.approx([1 / (1 + np.exp(-4)), 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(-1)), 0.5])


@pytest.mark.parametrize(("build", "other"), [("mask_filler", "fill_mask"), ("embedder", "search")])
def test_a_model_that_is_no_classifier_is_refused_with_where_to_send_it(tmp_path, build, other):
    wrong = engine.load(getattr(tiny_models, build)(tmp_path / "model"))
    with pytest.raises(InvalidRequest, match="does not classify") as caught:
        classifier.classify(wrong, ["frascati"])
    assert caught.value.field == "model.objective"
    assert other in caught.value.remedy


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_numbers_that_are_none_are_a_defect_and_no_answer(tmp_path, weight):
    folder = tmp_path / "model"
    bundle = tiny_models.classifier(folder)
    nodes = [("Gather", ["table", "input_ids"], ["found"], {}), ("ReduceSum", ["found", "axis"], ["logits"], {"keepdims": 0})]
    table = np.full((bundle.config["vocab_size"], 4), weight, dtype=np.float32)
    tiny_models.save_graph(folder / "model.onnx", nodes, {"table": table, "axis": np.array([1])}, {"logits": ["batch", 4]})
    with pytest.raises(RuntimeError, match="finite"):
        classifier.classify(engine.load(bundle), ["frascati"])


def test_large_logits_do_not_overflow():
    (row,) = classifier._probabilities(np.array([[1e4, -1e4, 9.999e3]], dtype=np.float32), {})
    assert row.tolist() == pytest.approx([1 / (1 + np.exp(-1)), 0, 1 - 1 / (1 + np.exp(-1))])
