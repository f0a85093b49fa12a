"""Find the named entities of texts: their words, label, probability and place."""

from mlaas import models, protocols, recognizer
from mlaas.predictions import NerRequest, NerResult
from mlaas.runtime import Context, Function, Response


def answer(request: NerRequest) -> NerResult:
    loaded = models.load(request.model, request.tokenizer)
    predictions = recognizer.recognize(loaded.model, request.predict_input.input_text, request.score_threshold)
    return NerResult(predictions=predictions, model=loaded.version)


function = Function("ner", NerRequest, NerResult, answer)
routes = protocols.Routes(function)


def main(context: Context) -> Response:
    return function(context)
