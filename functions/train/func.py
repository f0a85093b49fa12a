"""Accept trainings; a job trains, exports to ONNX and publishes."""

from mlaas.contracts import Task, TrainRequest
from mlaas.runtime import Context, Function, Response
from mlaas.training.accept import accept

function = Function("train", TrainRequest, Task, accept=accept)


def main(context: Context) -> Response:
    return function(context)
