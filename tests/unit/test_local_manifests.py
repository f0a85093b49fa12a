"""The YAML under eventing/: what the runner reads from it, and what it refuses."""

from pathlib import Path

import pytest
import yaml

from mlaas import events
from mlaas.local.manifests import BadManifest, load, seconds

BASE = Path(__file__).parents[2] / "eventing" / "base"
BROKER = {
    "apiVersion": "eventing.knative.dev/v1",
    "kind": "Broker",
    "metadata": {"name": "mlaas"},
    "spec": {"delivery": {"deadLetterSink": {"ref": {"kind": "KafkaSink", "name": "out"}}}},
}
SINK = {"apiVersion": "eventing.knative.dev/v1alpha1", "kind": "KafkaSink", "metadata": {"name": "out"}, "spec": {"topic": "out"}}


def trigger(**spec):
    ref = {"apiVersion": "eventing.knative.dev/v1alpha1", "kind": "KafkaSink", "name": "out"}
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": "some"},
        "spec": {"broker": "mlaas", "subscriber": {"ref": ref}, **spec},
    }


@pytest.fixture
def read(tmp_path):
    def write_and_load(*resources):
        (tmp_path / "kustomization.yaml").write_text("resources: [all.yaml]")
        (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(resources))
        return load(tmp_path)

    return write_and_load


@pytest.mark.parametrize(
    ("type", "triggers"),
    [
        *(
            (f"it.infn.mlaas.{name}.requested.v1", {name.replace("_", "-")})
            for name in ("classify", "fill_mask", "ner", "answer", "embed", "generate", "search", "index", "train")
        ),
        ("it.infn.mlaas.model.requested.v1", {"catalog"}),
        ("it.infn.mlaas.model.accepted.v1", {"events", "model-accepted"}),
        *((f"it.infn.mlaas.{name}.succeeded.v1", {"events", "catalog-counts"}) for name in ("classify", "search", "generate")),
        ("it.infn.mlaas.index.succeeded.v1", {"events"}),
        ("it.infn.mlaas.train.accepted.v1", {"events", "train-accepted"}),
        ("it.infn.mlaas.index.accepted.v1", {"events", "index-accepted"}),
        *((f"it.infn.mlaas.{name}.accepted.v1", {"events", "batch-accepted"}) for name in ("classify", "fill_mask", "search")),
        ("it.infn.mlaas.train.succeeded.v1", {"events", "index-follows"}),
        ("it.infn.mlaas.classify.failed.v1", {"events"}),
        ("it.infn.mlaas.train.progressed.v1", {"events"}),
        ("it.infn.mlaas.train.cancelled.v1", {"events"}),
        ("it.infn.mlaas.unknown.requested.v1", {"unroutable"}),
        ("it.infn.mlaas.classify.request.v1", {"unroutable"}),
        ("dev.knative.kafka.event", {"unroutable"}),
        ("com.example.succeeded.v1", {"unroutable"}),
    ],
)
def test_every_event_of_the_platform_goes_where_it_belongs(type, triggers):
    assert {
        name for name, one in load(BASE).routes.items() if one.topics == ("knative-broker-mlaas",) and one.accepts({"type": type})
    } == triggers


def test_no_type_of_the_platform_but_a_request_that_nobody_takes_is_unroutable():
    unroutable = load(BASE).routes["unroutable"]
    known = [events.event_type(capability, state) for capability in events.CAPABILITIES for state in events.STATES]
    assert [one for one in known if unroutable.accepts({"type": one})] == []


def test_the_base_wires_each_function_with_retries_and_dead_letters():
    manifests = load(BASE)
    assert set(manifests.services) == {"classify", "fill-mask", "ner", "answer", "embed", "generate", "search", "index", "train", "catalog"}
    assert manifests.services["fill-mask"].command == ("python", "-m", "mlaas.serve", "functions/fill_mask")
    assert {one.retention for one in manifests.services.values()} == {60.0}
    assert {one.retry for name, one in manifests.routes.items() if name != "source-requests"} == {5}
    assert manifests.routes["source-requests"].topics == ("mlaas.requests",)
    assert manifests.routes["events"].ordered
    assert {one.dead_letters for one in manifests.routes.values()} == {"dead-letters"}
    assert manifests.sinks["dead-letters"] == "mlaas.dead-letters"
    assert manifests.jobs["train"].command == ("python", "-m", "mlaas.training.job")
    assert manifests.jobs["train"].backoff_limit == 3
    assert manifests.jobs["batch"].command == ("python", "-m", "mlaas.batch")
    assert manifests.deployments["relay"].retention is None


def test_the_base_names_no_namespace_and_lists_every_file():
    documents = {path.name: yaml.safe_load(path.read_text()) for path in BASE.glob("*.yaml")}
    listed = set(documents.pop("kustomization.yaml")["resources"])
    assert listed == set(documents)
    assert not [name for name, document in documents.items() if "namespace" in document["metadata"]]


@pytest.mark.parametrize(
    ("filters", "event", "matches"),
    [
        ([{"exact": {"type": "a", "source": "/s"}}], {"type": "a", "source": "/s"}, True),
        ([{"exact": {"type": "a", "source": "/s"}}], {"type": "a"}, False),
        ([{"prefix": {"type": "a."}}, {"suffix": {"type": ".z"}}], {"type": "a.z"}, True),
        ([{"prefix": {"type": "a."}}, {"suffix": {"type": ".z"}}], {"type": "a.y"}, False),
        ([{"any": [{"exact": {"type": "a"}}, {"exact": {"type": "b"}}]}], {"type": "b"}, True),
        ([{"all": [{"exact": {"type": "a"}}, {"not": {"exact": {"subject": "x"}}}]}], {"type": "a"}, True),
        ([{"all": [{"exact": {"type": "a"}}, {"not": {"exact": {"subject": "x"}}}]}], {"type": "a", "subject": "x"}, False),
        ([{"not": {"suffix": {"absent": "x"}}}], {"type": "a"}, True),
    ],
)
def test_filters_mean_what_cloudevents_subscriptions_say(read, filters, event, matches):
    assert read(BROKER, SINK, trigger(filters=filters)).routes["some"].accepts(event) is matches


def test_filters_win_over_the_older_filter_and_an_empty_attribute_accepts_everything(read):
    both = read(BROKER, SINK, trigger(filter={"attributes": {"type": "a"}}, filters=[{"exact": {"type": "b"}}])).routes["some"]
    assert both.accepts({"type": "b"})
    assert not both.accepts({"type": "a"})
    assert read(BROKER, SINK, trigger(filter={"attributes": {"type": ""}})).routes["some"].accepts({"type": "anything"})


def test_a_triggers_delivery_stands_instead_of_its_brokers_but_for_the_dead_letters(read):
    letters = {"ref": {"apiVersion": "eventing.knative.dev/v1alpha1", "kind": "KafkaSink", "name": "out"}}
    broker = {**BROKER, "spec": {"delivery": {"retry": 7, "backoffDelay": "PT1S", "deadLetterSink": letters}}}
    usual = read(broker, SINK, trigger()).routes["some"]
    assert (usual.retry, usual.exponential, usual.delay, usual.dead_letters) == (7, True, 1.0, "out")
    changed = {"retry": 1, "backoffPolicy": "linear", "backoffDelay": "PT2S", "timeout": "PT10S"}
    own = read(broker, SINK, trigger(delivery=changed)).routes["some"]
    assert (own.retry, own.exponential, own.delay, own.timeout, own.dead_letters) == (1, False, 2.0, 10.0, "out")


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ([BROKER, SINK, trigger(filters=[{"cesql": "type = 'a'"}])], "all.yaml: Trigger some: the filter cesql is not understood"),
        ([BROKER, SINK, trigger(filters=[{"exact": {"type": "a"}, "prefix": {"type": "b"}}])], "exactly one dialect"),
        ([BROKER, SINK, trigger(delivery={"format": "json"})], "Trigger some: format is not understood"),
        ([BROKER, SINK, trigger(delivery={"backoffDelay": "soon"})], "must be a duration"),
        ([BROKER, SINK, trigger(broker="other")], "names another Broker"),
        ([BROKER, trigger()], "names the KafkaSink out, which does not exist"),
        ([BROKER, {**SINK, "kind": "Channel"}], "Channel is not understood"),
        ([BROKER, {**SINK, "spec": {"topic": "t", "contentMode": "structured"}}], "contentMode is not understood"),
        ([{**BROKER, "spec": {}}, SINK, trigger()], "KafkaSink .none., which does not exist"),
        ([BROKER, {**SINK, "spec": {}}], "KafkaSink out is not as Knative has it"),
        ([BROKER, SINK, SINK], "KafkaSink out: there is another one"),
        ([SINK, trigger()], "names another Broker"),
        (["text"], "is not as Knative has it"),
    ],
)
def test_what_would_change_delivery_and_is_not_understood_is_refused_by_name(read, resources, said):
    with pytest.raises(BadManifest, match=said):
        read(*resources)


def test_a_kustomization_that_changes_its_resources_is_refused(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: []\npatches: []\n")
    with pytest.raises(BadManifest, match="patches is not understood"):
        load(tmp_path)


@pytest.mark.parametrize(("text", "value"), [("PT0.5S", 0.5), ("PT1M30S", 90), ("60s", 60), ("1m30s", 90), ("1h", 3600), ("0.25s", 0.25)])
def test_durations_are_read_in_both_spellings(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "P", "PT", "5", "soon", "-1s", "PT-1S"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="duration"):
        seconds(text)
