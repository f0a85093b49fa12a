"""Search a vector store: the nearest documents of each text, L2 distance, lower is better."""

from mlaas import batch, embedder, models, protocols, timing
from mlaas.contracts import SearchRequest, SearchResult
from mlaas.runtime import Context, Function, Response


def answer(request: SearchRequest) -> SearchResult:
    index = models.load_store(request.dataset)
    loaded = models.load_for(index, request.model, request.tokenizer)
    texts = request.search_input.input_text
    vectors, truncated = embedder.embed(loaded.model, texts)
    with timing.span("search"):
        results = index.store.answer(request, texts, vectors)
    return SearchResult(results=results, truncated=truncated, index=index.version, model=loaded.version)


function = Function("search", SearchRequest, SearchResult, answer, batch.accept)
routes = protocols.Routes(function)


def main(context: Context) -> Response:
    return function(context)
