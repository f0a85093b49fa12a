"""Answer questions with words of the texts that come with them."""

from mlaas import answerer, models, protocols
from mlaas.predictions import AnswerRequest, AnswerResult
from mlaas.runtime import Context, Function, Response


def answer(request: AnswerRequest) -> AnswerResult:
    loaded = models.load(request.model, request.tokenizer)
    asked = request.predict_input
    predictions = answerer.answer(loaded.model, asked.question, asked.context, request.max_answer_tokens)
    return AnswerResult(predictions=predictions, model=loaded.version)


function = Function("answer", AnswerRequest, AnswerResult, answer)
routes = protocols.Routes(function)


def main(context: Context) -> Response:
    return function(context)
