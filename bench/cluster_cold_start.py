"""From a request to its answer through Knative, from zero, and what each step takes.

    KUBECONFIG=... python bench/cluster_cold_start.py --namespace mlaas --function classify --request request.json

The platform is installed (`docs/deploy.md`) and the model of the request in its catalog. Each run waits until no pod of the function is
left, sends one request to the ingress, and follows the pod by the API server's watch and by the function's own log lines:

- schedule: from the request to a pod that is bound to a node (activator, autoscaler, Deployment, scheduler)
- start: until the function's process runs (sandbox, network, volumes, init containers, queue-proxy's and the function's container)
- import: until Python has imported everything, as the process says
- load: until it is ready: the model of MLAAS_PRELOAD_MODEL, if there is one, is loaded and warm
- route: until the request reaches the function (readiness as the kubelet and queue-proxy see it, endpoints, activator)
- infer: the answer, with the look-up and the loading of the model where it was not preloaded

Prints the medians and writes bench/results/cluster_cold_start.json with all runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlaas.testing.cluster import Cluster, unusable
from mlaas.testing.processes import until

RESULTS = Path(__file__).parent / "results" / "cluster_cold_start.json"
STEPS = ("schedule", "start", "import", "load", "route", "infer")


def seconds_of(line: dict[str, Any]) -> float:
    """When a log line was written, in seconds since the epoch."""
    return datetime.fromisoformat(line["time"]).replace(tzinfo=UTC).timestamp()


def measure(cluster: Cluster, function: str, request: dict[str, Any], container: str) -> dict[str, Any]:
    """One cold start: seconds of each step, and in all."""
    cluster.wait_for_zero(function)
    time.sleep(2)
    selector = f"serving.knative.dev/service={function.replace('_', '-')}"
    with cluster.watching(selector) as times:
        sent = time.time()
        answer = cluster.ask(function, request)
        answered = time.time()
        if answer.status_code != 200:
            raise SystemExit(f"{function} answered {answer.status_code}: {answer.text}")
        until(lambda: times.seen, 10, "the pod")
        (pod,) = list(times.seen)[:1]
    lines = {line["event"]: line for line in cluster.log_lines(pod, container)}
    ready, first = lines["function.ready"], lines["function.first_answer"]
    began = seconds_of(ready) - ready["ready_after"]
    infer = first["seconds"] - first["ready_after"]
    scheduled = times.seen[pod]["PodScheduled"]
    steps = {
        "schedule": scheduled - sent,
        "start": began - scheduled,
        "import": ready["imported_after"],
        "load": ready["ready_after"] - ready["imported_after"],
        "route": answered - infer - seconds_of(ready),
        "infer": infer,
    }
    steps |= {"ready": ready["ready_after"], "all": answered - sent}
    return {name: round(value, 3) for name, value in steps.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespace", default="mlaas")
    parser.add_argument("--function", default="classify")
    parser.add_argument("--request", type=Path, required=True, help="JSON of a request that the function can answer")
    parser.add_argument("--ingress", default="http://10.250.0.1:31080")
    parser.add_argument("--domain", default="lab.internal")
    parser.add_argument("--container", default="function", help="the function's container in its pod")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--name", default="as deployed", help="what is measured, as a key in the result file")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if reason := unusable(os.environ.get("KUBECONFIG")):
        print(reason, file=sys.stderr)
        return 2
    cluster = Cluster(options.namespace, "", "", options.ingress, options.domain)
    request = json.loads(options.request.read_text("utf-8"))
    runs = []
    for number in range(options.runs):
        runs.append(measure(cluster, options.function, request, options.container))
        print(f"run {number + 1}: {runs[-1]}")
    medians = {name: round(statistics.median(run[name] for run in runs), 3) for name in (*STEPS, "ready", "all")}
    print("| " + " | ".join(medians) + " |\n|" + "---:|" * len(medians))
    print("| " + " | ".join(f"{value:.2f}" for value in medians.values()) + " |")
    recorded = json.loads(options.output.read_text()) if options.output.exists() else {}
    recorded[options.name] = {"command": " ".join(sys.argv), "date": f"{datetime.now(UTC):%Y-%m-%d}", "medians": medians, "runs": runs}
    options.output.write_text(json.dumps(recorded, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
