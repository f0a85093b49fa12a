"""The platform on a real Kubernetes with Knative: `KUBECONFIG=... make test-cluster`.

It is installed from an overlay into the namespace that the overlay names. The document store and the object store are
started by the tests on an address of this machine that pods reach. What the tests measured is one table:
`--cluster-table FILE` writes it between the markers of that file, where the whole suite was run.

| variable | default | what it is |
|---|---|---|
| MLAAS_TEST_OVERLAY | eventing/overlays/lab | the overlay that is installed |
| MLAAS_TEST_HOST | 10.250.0.1 | the address of this machine that pods reach |
| MLAAS_TEST_KAFKA | 10.250.0.1:39092 | Kafka, as pods and as this machine reach it |
| MLAAS_TEST_INGRESS | http://10.250.0.1:31080 | Knative's ingress |
| MLAAS_TEST_DOMAIN | lab.internal | the domain of Knative's services |
| MLAAS_TEST_KEEP | | leave the platform there afterwards |
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlaas import settings
from mlaas.client import DEAD_LETTERS, EVENTS, REQUESTS, EventClient
from mlaas.errors import Unavailable
from mlaas.settings import Settings
from mlaas.testing import fault_table
from mlaas.testing.cluster import Check, Cluster, unusable
from mlaas.testing.homes import publish_tiny_models
from mlaas.testing.mongo_server import MongoServer
from mlaas.testing.processes import until
from mlaas.testing.s3_server import BUCKET, S3Server, credentials, running_s3_server
from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HOST = os.environ.get("MLAAS_TEST_HOST", "10.250.0.1")
OVERLAY = Path(os.environ.get("MLAAS_TEST_OVERLAY", "eventing/overlays/lab"))
TOKEN = "cluster-tests"
CHECKS = pytest.StashKey[dict[str, Check]]()
STARTED = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster-table", type=Path, help="write the table of checks between the markers of this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CHECKS], config.stash[STARTED] = {}, time.monotonic()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reason = unusable(os.environ.get("KUBECONFIG"))
    for item in items:
        if mark := item.get_closest_marker("cluster"):
            config.stash[CHECKS][item.nodeid] = Check(str(mark.args[0]))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    check = item.config.stash[CHECKS].get(item.nodeid)
    if check and (report.when == "call" or report.outcome != "passed"):
        check.outcome = {"passed": "passed", "failed": "**failed**", "skipped": "not run"}[report.outcome]
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    checks = list(config.stash[CHECKS].values())
    if not checks:
        return
    passed = sum(check.outcome == "passed" for check in checks)
    minutes = (time.monotonic() - config.stash[STARTED]) / 60
    said = f"{datetime.now(UTC):%Y-%m-%d}; {_versions()}; `make test-cluster`; {minutes:.1f} minutes; {passed} of {len(checks)} checks passed.\n"
    rows = [f"| {check.name} | {check.outcome} | {check.figures} |" for check in checks]
    table = "\n".join([said, "| check | result | figures |\n|---|---|---|", *rows])
    terminalreporter.write_sep("=", "cluster")
    terminalreporter.write_line(table)
    file: Path | None = config.getoption("--cluster-table")
    if (
        file
        and not unusable(os.environ.get("KUBECONFIG"))
        and {node.partition("::")[0].rpartition("/")[2] for node in config.stash[CHECKS]} == {path.name for path in HERE.glob("test_*.py")}
    ):
        fault_table.insert(file, table, "cluster")
        terminalreporter.write_line(f"written to {file}")
    elif file:
        terminalreporter.write_line(f"{file} is left as it is: this was not the whole suite")


def _versions() -> str:
    if unusable(os.environ.get("KUBECONFIG")):
        return "no cluster"
    server = json.loads(subprocess.run(["kubectl", "version", "-o", "json"], capture_output=True, text=True, check=True).stdout)[
        "serverVersion"
    ]
    return f"Kubernetes {server['gitVersion']}; {os.cpu_count()} cores"


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Check:
    """The row of this test."""
    return request.config.stash[CHECKS][request.node.nodeid]


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """The document store: a server that can be stopped and started again on its data."""
    with MongoServer(tmp_path_factory.mktemp("mongo") / "data.mv", host=HOST) as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """The object store."""
    with running_s3_server(host=HOST) as server, credentials(server):
        yield server


@pytest.fixture(scope="session")
def stores(mongo: MongoServer, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """This process sees the same stores as the pods, and tiny models are in them."""
    folder = tmp_path_factory.mktemp("stores")
    os.environ.update(
        MLAAS_HOME=str(folder / "home"),
        MLAAS_DOCUMENTS=mongo.url,
        MLAAS_S3_ENDPOINT=s3.endpoint,
        MLAAS_EXCHANGE=f"s3:{BUCKET}/exchange",
        MLAAS_KAFKA=os.environ.get("MLAAS_TEST_KAFKA", f"{HOST}:39092"),
    )
    settings.current.cache_clear()
    made = settings.current()
    publish_tiny_models(folder / "models", made, "s3", f"{BUCKET}/")
    _upload(folder, made)
    yield made
    settings.current.cache_clear()


def _upload(folder: Path, made: Settings) -> None:
    from mlaas import storage

    checkpoint = write_checkpoint(folder / "checkpoint")
    for file in checkpoint.iterdir():
        storage.put(file, f"{BUCKET}/checkpoints/birds/{file.name}", "s3", settings=made)
    storage.put(write_rows(folder / "birds.jsonl"), f"{BUCKET}/data/birds.jsonl", "s3", settings=made)
    documents = folder / "documents.jsonl"
    documents.write_text("".join(json.dumps({"id": f"doc-{n}", "abstract": f"neutrino oscillations number {n}"}) + "\n" for n in range(20)))
    storage.put(documents, f"{BUCKET}/data/documents.jsonl", "s3", settings=made)


@pytest.fixture(scope="session")
def cluster(stores: Settings) -> Iterator[Cluster]:
    """The platform, installed from the overlay and ready."""
    rendered = subprocess.run(["kubectl", "kustomize", str(ROOT / OVERLAY)], capture_output=True, text=True, check=True).stdout
    found = Cluster(
        namespace=_namespace(rendered),
        host=HOST,
        kafka=stores.kafka,
        ingress=os.environ.get("MLAAS_TEST_INGRESS", f"http://{HOST}:31080"),
        domain=os.environ.get("MLAAS_TEST_DOMAIN", "lab.internal"),
    )
    _remove(found)
    _topics(stores.kafka)
    subprocess.run(["kubectl", "create", "namespace", found.namespace], check=True, capture_output=True)
    found.apply(_secret(stores))
    resources = _with_settings(rendered, _settings(stores))
    until(lambda: _applied(found, resources), 120, "Knative's webhooks", every=5)
    for kind in ("ksvc", "broker", "trigger", "kafkasource", "jobsink", "deployment"):
        found.wait_ready(kind, 300)
    yield found
    if not os.environ.get("MLAAS_TEST_KEEP"):
        _remove(found)


def _applied(found: Cluster, resources: list[dict[str, Any]]) -> bool:
    """Whether the cluster took them; not while a webhook of Knative's is between two lives of its pod."""
    try:
        found.apply(*resources)
    except Unavailable as error:
        if "failed calling webhook" in str(error):
            return False
        raise
    return True


def _namespace(rendered: str) -> str:
    import yaml

    (name,) = {one["metadata"]["namespace"] for one in yaml.safe_load_all(rendered) if one["kind"] == "Trigger"}
    return str(name)


def _remove(found: Cluster) -> None:
    """The namespace, and with it everything of an earlier run."""
    subprocess.run(
        ["kubectl", "delete", "namespace", found.namespace, "--ignore-not-found", "--timeout=180s"], check=True, capture_output=True
    )


def _topics(kafka: str) -> None:
    """Empty topics: those of an earlier run are deleted."""
    from kafka import KafkaAdminClient

    names = (REQUESTS, EVENTS, DEAD_LETTERS)
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    try:
        if there := [name for name in names if name in admin.list_topics()]:
            admin.delete_topics(there)
            deadline = time.monotonic() + 30
            while set(there) & set(admin.list_topics()) and time.monotonic() < deadline:
                time.sleep(0.5)
        admin.create_topics({name: {"num_partitions": 4, "replication_factor": 1} for name in names}, wait_for_metadata=True)
    finally:
        admin.close()


def _with_settings(rendered: str, settings: dict[str, str | None]) -> list[dict[str, Any]]:
    """The overlay's resources, its ConfigMap with the addresses of what the tests started."""
    import yaml

    resources = list(yaml.safe_load_all(rendered))
    (one,) = (one for one in resources if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", "mlaas"))
    one["data"].update(settings)
    return resources


def _settings(made: Settings) -> dict[str, str | None]:
    return {
        "MLAAS_S3_ENDPOINT": made.s3_endpoint,
        "MLAAS_EXCHANGE": made.exchange,
        "MLAAS_KAFKA": made.kafka,
        "AWS_EC2_METADATA_DISABLED": "true",
        "MLAAS_HUB_ALLOWED": "no",
    }


def _secret(made: Settings) -> dict[str, Any]:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    data = {"MLAAS_DOCUMENTS": made.documents_url, "MLAAS_TOKEN": TOKEN, **{name: os.environ[name] for name in names}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mlaas"}, "stringData": data}


@pytest.fixture
def events_of(cluster: Cluster) -> Iterator[EventClient]:
    """Kafka, from now on."""
    with EventClient(cluster.kafka) as client:
        yield client


@pytest.fixture
def trainings_into(stores: Settings) -> Callable[[str], list[dict[str, Any]]]:
    """The tasks that were asked to save a model under a name, as the document store has them."""
    from mlaas.documents import connect

    def found(name: str) -> list[dict[str, Any]]:
        with closing(connect(stores.documents_url)) as documents:
            tasks = [one.body for one in documents.find("tasks", {"capability": "train"})]
        return [task for task in tasks if task["request"]["model_save"]["path"] == f"{BUCKET}/models/{name}"]

    return found


@pytest.fixture
def token(cluster: Cluster) -> str:
    """What opens the catalog of this installation."""
    return TOKEN
