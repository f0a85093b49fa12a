"""A Kubernetes cluster with Knative as the cluster tests and `bench/cluster_*.py` use it: kubectl, its ingress, its pods."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from ..errors import Unavailable
from .processes import until

__all__ = ["Check", "Cluster", "PodTimes", "unusable"]

_SERVICE = "serving.knative.dev/service"


def unusable(kubeconfig: str | None) -> str | None:
    """Why no test may use the cluster of `kubeconfig`; None if it may.

    Tests send load and kill pods, so the API server must be an address of this machine, unless MLAAS_TEST_ANY_CLUSTER is set.
    """
    if not kubeconfig:
        return "KUBECONFIG names no cluster"
    if not shutil.which("kubectl"):
        return "kubectl is not installed"
    command = ["kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    host = urlsplit(found.stdout.strip()).hostname
    if not host:
        return "KUBECONFIG names no API server"
    if not (_is_here(host) or os.environ.get("MLAAS_TEST_ANY_CLUSTER")):
        return f"the API server {host} is not on this machine; MLAAS_TEST_ANY_CLUSTER=yes allows a cluster elsewhere"
    command = ["kubectl", "get", "--raw", "/readyz"]
    ready = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    return None if ready.returncode == 0 else "the API server does not answer"


def _is_here(host: str) -> bool:
    """Whether an interface of this machine has the address."""
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


@dataclass
class Check:
    """A row of the table of a run: what is checked, what came of it, the figures that the test measured."""

    name: str
    outcome: str = "not run"
    figures: str = ""

    def measured(self, figures: str) -> None:
        """Put figures into the row."""
        self.figures = figures


@dataclass
class PodTimes:
    """When a pod was first seen to be so: seconds since the epoch, by this machine's clock."""

    seen: dict[str, dict[str, float]] = field(default_factory=dict)

    def note(self, pod: Mapping[str, Any]) -> None:
        """Take down what the pod has come to."""
        times = self.seen.setdefault(pod["metadata"]["name"], {})
        now = time.time()
        times.setdefault("created", now)
        for condition in pod["status"].get("conditions", ()):
            if condition["status"] == "True":
                times.setdefault(condition["type"], now)
        for one in (*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ())):
            if "running" in one["state"] or "terminated" in one["state"]:
                times.setdefault(f"started {one['name']}", now)
            if one.get("ready"):
                times.setdefault(f"ready {one['name']}", now)


@dataclass(frozen=True)
class Cluster:
    """The namespace of the tests, and where things are: `host` is this machine as pods reach it, `ingress` a URL, `kafka` HOST:PORT."""

    namespace: str
    host: str
    kafka: str
    ingress: str
    domain: str

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
        """What `kubectl -n NAMESPACE arguments` prints. Raises Unavailable with what it complains of."""
        command = ["kubectl", "-n", self.namespace, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)  # noqa: S603
        if done.returncode:
            raise Unavailable(f"kubectl {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """The resources of a kind."""
        chosen = ("-l", selector) if selector else ()
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, *chosen, "-o", "json"))["items"]
        return found

    def apply(self, *resources: Mapping[str, Any]) -> None:
        """Create or change resources."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": resources}))

    def wait_ready(self, kind: str, seconds: float = 180) -> None:
        """Wait until every resource of a kind is Ready. Raises AssertionError, naming those that are not."""
        last: dict[str, str] = {}

        def all_ready() -> bool:
            last.clear()
            for one in self.items(kind):
                conditions = {each["type"]: each for each in one.get("status", {}).get("conditions", ())}
                ready = conditions.get("Ready") or conditions.get("Available") or {}
                if ready.get("status") != "True":
                    last[one["metadata"]["name"]] = str(ready.get("message", "no status"))
            return not last

        try:
            until(all_ready, seconds, f"the readiness of each {kind}", every=1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}") from None

    def pods(self, function: str) -> list[dict[str, Any]]:
        """The pods of a function that are not being deleted."""
        found = self.items("pods", f"{_SERVICE}={_resource(function)}")
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def wait_for_zero(self, function: str, seconds: float = 180) -> float:
        """Wait until no pod of the function is left; how long that took, in seconds."""
        return until(lambda: not self.items("pods", f"{_SERVICE}={_resource(function)}"), seconds, f"{function} at zero", every=0.5)

    def kill(self, pod: str, command: str) -> str:
        """Kill with -9 what runs `command` in a pod, or the pod where its node is not this machine; says which."""
        uid = json.loads(self.kubectl("get", "pod", pod, "-o", "json"))["metadata"]["uid"]
        found = _processes(uid, command)
        for process in found:
            os.kill(process, signal.SIGKILL)
        if not found:
            self.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
        return "a process killed with -9" if found else "a pod deleted by force"

    def session(self, function: str) -> requests.Session:
        """An HTTP session whose requests to `ingress` go to a function."""
        session = requests.Session()
        session.trust_env = False
        session.headers.update({"Host": f"{_resource(function)}.{self.namespace}.{self.domain}"})
        return session

    def ask(self, function: str, request: Mapping[str, Any], timeout: float = 120) -> requests.Response:
        """POST one request to a function through the ingress."""
        with self.session(function) as session:
            return session.post(self.ingress, json=request, timeout=timeout)

    @contextmanager
    def watching(self, selector: str) -> Iterator[PodTimes]:
        """What pods come to, and when, while the block runs: the API server's watch, so within milliseconds."""
        command = ["kubectl", "-n", self.namespace, "get", "pods", "-l", selector, "-o", "json", "--watch", "--output-watch-events"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
        times = PodTimes()
        reader = threading.Thread(target=_read, args=(process, times), daemon=True)
        reader.start()
        try:
            time.sleep(1)  # the watch is there
            yield times
        finally:
            process.kill()
            process.wait()
            reader.join(timeout=5)
            if process.stdout:
                process.stdout.close()

    def log_lines(self, pod: str, container: str) -> list[dict[str, Any]]:
        """The JSON lines that a container has logged."""
        lines = self.kubectl("logs", pod, "-c", container).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def _processes(uid: str, command: str) -> list[int]:
    """The processes of a pod on this machine with `command` in their command lines."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cgroups, words = (process / "cgroup").read_text(), (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended
            continue
        if (uid in cgroups or uid.replace("-", "_") in cgroups) and command in words:
            found.append(int(process.name))
    return found


def _read(process: subprocess.Popen[str], times: PodTimes) -> None:
    """Note the pods of a stream of JSON documents: a line each, or many lines of which the last is `}`."""
    assert process.stdout, "a pipe was asked for"
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("}") or (line.startswith("{") and line.endswith("}\n")):
            times.note(json.loads("".join(lines))["object"])
            lines.clear()


def _resource(function: str) -> str:
    return function.replace("_", "-")
