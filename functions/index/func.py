"""Accept index builds; a job embeds and publishes. After a training, build again what follows the model."""

from mlaas import events, indexing
from mlaas.contracts import IndexRequest, Task
from mlaas.runtime import Context, Function, Response

function = Function("index", IndexRequest, Task, accept=indexing.accept, follows={events.event_type("train", "succeeded"): indexing.follow})


def main(context: Context) -> Response:
    return function(context)
