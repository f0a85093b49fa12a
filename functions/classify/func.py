"""Classify texts, e.g. an affiliation string by the INFN structure that it names."""

from mlaas import batch, classifier, models, protocols
from mlaas.contracts import ClassifyRequest, ClassifyResult
from mlaas.runtime import Context, Function, Response


def answer(request: ClassifyRequest) -> ClassifyResult:
    loaded = models.load(request.model, request.tokenizer)
    asked = request.predict_input
    predictions = classifier.classify(loaded.model, asked.input_text, request.top_k, request.score_threshold, pairs=asked.text_pair)
    return ClassifyResult(predictions=predictions, model=loaded.version)


function = Function("classify", ClassifyRequest, ClassifyResult, answer, batch.accept)
routes = protocols.Routes(function)


def main(context: Context) -> Response:
    return function(context)
