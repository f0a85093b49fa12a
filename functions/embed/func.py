"""Turn texts into vectors, the ones that search and index compute."""

from mlaas import embedder, models, protocols
from mlaas.predictions import EmbedRequest, EmbedResult
from mlaas.runtime import Context, Function, Response


def answer(request: EmbedRequest) -> EmbedResult:
    loaded = models.load(request.model, request.tokenizer)
    vectors, truncated = embedder.embed(loaded.model, request.predict_input.input_text)
    return EmbedResult(vectors=embedder.listed(vectors), dimension=vectors.shape[1], truncated=truncated, model=loaded.version)


function = Function("embed", EmbedRequest, EmbedResult, answer)
routes = protocols.Routes(function, openai=True)


def main(context: Context) -> Response:
    return function(context)
