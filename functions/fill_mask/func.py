"""Fill masks in: the most likely tokens for every mask of every text."""

from mlaas import batch, mask_filler, models, protocols
from mlaas.contracts import FillMaskRequest, FillMaskResult
from mlaas.runtime import Context, Function, Response


def answer(request: FillMaskRequest) -> FillMaskResult:
    loaded = models.load(request.model, request.tokenizer)
    predictions = mask_filler.fill_masks(loaded.model, request.predict_input.input_text, request.top_k)
    return FillMaskResult(predictions=predictions, model=loaded.version)


function = Function("fill_mask", FillMaskRequest, FillMaskResult, answer, batch.accept)
routes = protocols.Routes(function)


def main(context: Context) -> Response:
    return function(context)
