"""The catalog: REST under /v1, the web app under /web, checkpoints that become models, and counts of what was served."""

from mlaas import catalog_api, events, web
from mlaas.contracts import ModelRequest, Task
from mlaas.runtime import Context, Function, Response

SERVING = ("classify", "fill_mask", "ner", "answer", "embed", "generate", "search")

routes = web.Routes()
function = Function(
    "model",
    ModelRequest,
    Task,
    accept=catalog_api.accept,
    hears={events.event_type(capability, "succeeded"): catalog_api.count for capability in SERVING},
)


def main(context: Context) -> Response:
    return function(context)
