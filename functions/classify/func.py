"""Classify texts, e.g. an affiliation string by the INFN structure that it names."""

from mlaas import batch, classifier, models
from mlaas.contracts import ClassifyRequest, ClassifyResult
from mlaas.runtime import Context, Function, Response


def answer(request: ClassifyRequest) -> ClassifyResult:
    loaded = models.load(request.model, request.tokenizer)
    texts = request.predict_input.input_text
    predictions = classifier.classify(loaded.model, texts, request.top_k, request.score_threshold)
    return ClassifyResult(predictions=predictions, model=loaded.version)


function = Function("classify", ClassifyRequest, ClassifyResult, answer, batch.accept)


def main(context: Context) -> Response:
    return function(context)
