"""Continue texts with a causal language model."""

from mlaas import generator, models, protocols
from mlaas.predictions import GenerateRequest, GenerateResult
from mlaas.runtime import Context, Function, Response


def answer(request: GenerateRequest) -> GenerateResult:
    loaded = models.load(request.model, request.tokenizer)
    predictions = generator.generate(loaded.model, request.predict_input.input_text, request.generate)
    return GenerateResult(predictions=predictions, model=loaded.version)


function = Function("generate", GenerateRequest, GenerateResult, answer)
routes = protocols.Routes(function)


def main(context: Context) -> Response:
    return function(context)
