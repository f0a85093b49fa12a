"""The YAML under eventing/: as the schemas of its kinds say, safe by itself, and together with the functions and the event types."""

import copy
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlaas import events
from mlaas.testing import lab_services
from mlaas.testing.manifest_check import components, files, main, overlays, problems, rendered
from mlaas.testing.s3_server import BUCKET

ROOT = Path(__file__).parents[2]
EVENTING = ROOT / "eventing"
BASE = {file.name: one for file, one in files(EVENTING) if file.parent.name == "base"}
SERVICES = {name: one for name, one in BASE.items() if name.endswith(".service.yaml")}
JOBS = {name: one for name, one in BASE.items() if name.endswith(".jobsink.yaml")}
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/func.py"))


def pod(resource):
    spec = resource["spec"]
    return (spec["job"]["spec"] if resource["kind"] == "JobSink" else spec)["template"]["spec"]


PODS = {name: pod(one) for name, one in BASE.items() if one["kind"] in ("Service", "JobSink", "Deployment")}


@pytest.mark.parametrize("file", [file for file, _ in files(EVENTING)], ids=lambda file: file.name)
def test_every_resource_is_as_the_schema_of_its_kind_says(file):
    assert [one for resource in yaml.safe_load_all(file.read_text()) for one in problems(resource)] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one["spec"]["template"]["spec"].update(containerConcurency=4), "spec.template.spec: .*containerConcurency"),
        (lambda one: one["spec"]["template"]["spec"].update(timeoutSeconds="300"), "timeoutSeconds: '300' is not of type 'integer'"),
        (lambda one: one["metadata"].update(name="Classify"), "metadata.name"),
        (lambda one: one["metadata"]["labels"].update(tier=1), "metadata.labels.tier"),
        (lambda one: one.pop("metadata"), "'metadata' is a required property"),
        (lambda one: one.update(apiVersion="serving.knative.dev/v9"), "there is no schema for Service of serving.knative.dev/v9"),
    ],
)
def test_what_kubernetes_would_refuse_or_drop_in_silence_is_named(change, said):
    changed = copy.deepcopy(BASE["classify.service.yaml"])
    change(changed)
    assert [one for one in problems(changed) if re.search(said, one)]


def test_what_is_wrong_in_the_job_of_a_jobsink_is_named():
    changed = copy.deepcopy(BASE["train.jobsink.yaml"])
    changed["spec"]["job"]["spec"]["template"]["spec"]["restartPolice"] = "Never"
    assert "restartPolice" in str(problems(changed))


def test_each_function_has_a_service_and_a_trigger_for_its_requests_and_nothing_else_has():
    assert sorted(name.removesuffix(".service.yaml") for name in SERVICES) == FUNCTIONS
    for function in FUNCTIONS:
        service, trigger = BASE[f"{function}.service.yaml"], BASE[f"{function}.trigger.yaml"]
        name = function.replace("_", "-")
        assert pod(service)["containers"][0]["args"] == [f"functions/{function}"]
        asked_for = "model" if function == "catalog" else function
        assert trigger["spec"]["filter"]["attributes"] == {"type": events.event_type(asked_for, "requested")}
        assert trigger["spec"]["subscriber"]["ref"]["name"] == service["metadata"]["name"] == trigger["metadata"]["name"] == name
        assert yaml.safe_load((ROOT / "functions" / function / "func.yaml").read_text())["name"] == name
    assert set(FUNCTIONS) == set(events.CAPABILITIES) - {"model"} | {"catalog"}


def test_each_type_that_a_trigger_names_is_one_of_the_platform():
    known = {events.event_type(capability, state) for capability in events.CAPABILITIES for state in events.STATES}
    named = {text for one in BASE.values() if one["kind"] == "Trigger" for text in _exact(one["spec"])}
    assert named
    assert named <= known


def _exact(part):
    if isinstance(part, dict):
        for key, value in part.items():
            yield from ([value] if key == "type" and str(value).endswith("ed.v1") and not value.startswith(".") else _exact(value))
    elif isinstance(part, list):
        for one in part:
            yield from _exact(one)


@pytest.mark.parametrize("name", sorted(PODS))
def test_no_pod_runs_as_root_writes_to_its_root_gains_rights_or_holds_a_token(name):
    spec = PODS[name]
    (container,) = spec["containers"]
    security = {**spec.get("securityContext", {}), **container["securityContext"]}
    assert security == {
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert spec["automountServiceAccountToken"] is False
    assert f"{spec['serviceAccountName']}.serviceaccount.yaml" in BASE
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts) == {"/var/lib/mlaas", "/tmp"}
    assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"])
    assert {"name": "MLAAS_HOME", "value": "/var/lib/mlaas"} in container["env"]
    assert container["envFrom"] == [{"configMapRef": {"name": "mlaas"}}, {"secretRef": {"name": "mlaas"}}]
    assert "memory" in container["resources"]["limits"]


def test_a_functions_cache_fits_into_its_volume():
    size = int(BASE["mlaas.configmap.yaml"]["data"]["MLAAS_CACHE_BYTES"])
    for name in SERVICES:
        volumes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in PODS[name]["volumes"]}
        assert size < int(volumes["state"].removesuffix("Gi")) * 1024**3


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_function_is_started_ready_and_alive_by_its_own_word_and_takes_no_more_than_its_threads(name):
    # The ports are said: Knative fills in that of the readiness probe alone, and Kubernetes then refuses the pod.
    spec = PODS[name]
    (container,) = spec["containers"]
    probes = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {
        "startupProbe": {"path": "/health/readiness", "port": 8080},
        "readinessProbe": {"path": "/health/readiness", "port": 8080},
        "livenessProbe": {"path": "/health/liveness", "port": 8080},
    }
    assert {"name": "MLAAS_THREADS", "value": str(spec["containerConcurrency"])} in container["env"]
    notes = BASE[name]["spec"]["template"]["metadata"]["annotations"]
    assert {key.rpartition("/")[2] for key in notes} == {
        "min-scale",
        "max-scale",
        "target-utilization-percentage",
        "scale-to-zero-pod-retention-period",
    }


@pytest.mark.parametrize("name", sorted(JOBS))
def test_a_job_ends_is_removed_and_is_not_blamed_for_a_drained_node(name):
    job = JOBS[name]["spec"]["job"]["spec"]
    assert job["activeDeadlineSeconds"] > 0
    assert job["ttlSecondsAfterFinished"] > 0
    assert job["backoffLimit"] == 3
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # as a podFailurePolicy asks for


def test_no_file_holds_a_secret():
    for file, one in files(EVENTING):
        assert one["kind"] != "Secret", file
        assert not [name for name in one.get("data", {}) if "SECRET" in name or "PASSWORD" in name or name == "MLAAS_DOCUMENTS"], file


def test_the_laboratory_names_the_stores_that_are_run_for_it():
    data = yaml.safe_load((EVENTING / "overlays" / "lab" / "mlaas.configmap.patch.yaml").read_text())["data"]
    assert data["MLAAS_S3_ENDPOINT"] == f"http://{lab_services.HOST}:{lab_services.S3_PORT}"
    assert data["MLAAS_EXCHANGE"] == f"s3:{BUCKET}/exchange"


@pytest.mark.parametrize("folder", [*overlays(EVENTING), *components(EVENTING)], ids=lambda folder: folder.name)
def test_kustomize_renders_it_and_what_comes_out_is_as_the_schemas_say(folder):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl, which renders overlays, is not installed")
    resources = rendered(folder)
    assert [one for resource in resources for one in problems(resource)] == []
    identities = [(one["kind"], one["metadata"]["name"]) for one in resources]
    assert len(set(identities)) == len(identities)


def test_every_resource_that_is_named_in_the_laboratory_is_there():
    if not shutil.which("kubectl"):
        pytest.skip("kubectl, which renders overlays, is not installed")
    resources = rendered(EVENTING / "overlays" / "lab")
    there = {(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in resources}
    named = {(ref["apiVersion"], ref["kind"], ref["name"]) for one in resources for ref in _references(one.get("spec", {}))}
    assert named
    assert named <= there
    assert not [one for one in there if one[1] == "KafkaSink"]


def _references(part):
    if isinstance(part, dict):
        if isinstance(part.get("ref"), dict):
            yield part["ref"]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for one in part:
            yield from _references(one)


def test_the_check_fails_for_a_file_that_is_wrong_and_says_which(tmp_path, monkeypatch, capsys):
    shutil.copytree(EVENTING, tmp_path / "eventing")
    file = tmp_path / "eventing" / "base" / "classify.trigger.yaml"
    file.write_text(file.read_text().replace("subscriber:", "subscribe:"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no kubectl there
    assert main([str(tmp_path / "eventing")]) == 1
    assert "classify.trigger.yaml: Trigger classify: spec" in capsys.readouterr().err


def of(component, kind):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl, which renders overlays, is not installed")
    return {one["metadata"]["name"]: one for one in rendered(EVENTING / "components" / component) if one["kind"] == kind}


def test_with_gpus_each_pod_that_holds_a_model_has_one_and_no_other_has():
    pods = {name: pod(one)["containers"][0] for kind in ("Service", "JobSink") for name, one in of("gpu", kind).items() if name != "train"}
    pods |= {"train job": pod(of("gpu", "JobSink")["train"])["containers"][0], "train": pod(of("gpu", "Service")["train"])["containers"][0]}
    having = {name for name, one in pods.items() if "nvidia.com/gpu" in one["resources"]["limits"]}
    assert having == {"answer", "classify", "embed", "fill-mask", "generate", "ner", "search", "batch", "index", "train job"}
    for name in having - {"batch", "index", "train job"}:
        one = of("gpu", "Service")[name]
        assert {"name": "MLAAS_THREADS", "value": str(one["spec"]["template"]["spec"]["containerConcurrency"])} in pods[name]["env"]
        assert pods[name]["image"] == "mlaas-serve-gpu"


def test_with_staged_models_each_function_that_holds_one_finds_what_the_init_container_copied():
    for name, one in of("staged", "Service").items():
        spec = pod(one)
        if name in ("catalog", "index", "train"):
            assert "initContainers" not in spec
            continue
        (stage,), (function,) = spec["initContainers"], spec["containers"]
        assert stage["image"] == "mlaas-serve-models"
        (place,) = [mount["mountPath"] for mount in function["volumeMounts"] if mount["name"] == "staged" and mount["readOnly"]]
        assert {"name": "MLAAS_STAGED", "value": place} in function["env"]
        assert {"name": "staged", "mountPath": place} in stage["volumeMounts"]
        assert "staged" in {volume["name"] for volume in spec["volumes"]}
        assert stage["securityContext"] == function["securityContext"]


def test_the_init_container_copies_models_and_leaves_the_folder_that_it_does_not_own_as_it_is(tmp_path):
    patch = yaml.safe_load((EVENTING / "components" / "staged" / "service.patch.yaml").read_text())
    (program,) = patch[0]["value"][0]["args"]
    models, volume = tmp_path / "models", tmp_path / "staged"
    (models / "0123456789abcdef").mkdir(parents=True)
    (models / "0123456789abcdef" / "manifest.json").write_text("{}")
    volume.mkdir()
    volume.chmod(0o1777)
    program = program.replace("/models", str(models)).replace("/staged", str(volume))
    for _ in range(2):  # an init container may run again
        subprocess.run([sys.executable, "-c", program], check=True)
    assert (volume / "0123456789abcdef" / "manifest.json").read_text() == "{}"
    assert stat.S_IMODE(volume.stat().st_mode) == 0o1777


def test_with_index_shards_an_index_build_has_as_many_pods_as_shards():
    spec = of("index_shards", "JobSink")["index"]["spec"]["job"]["spec"]
    (shards,) = [one["value"] for one in spec["template"]["spec"]["containers"][0]["env"] if one["name"] == "MLAAS_INDEX_SHARDS"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(shards)


def test_with_kueue_each_job_waits_in_the_queue_that_there_is():
    (queue,) = of("kueue", "LocalQueue")
    for one in of("kueue", "JobSink").values():
        assert one["spec"]["job"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue


def test_a_canary_moves_the_traffic_of_every_function_step_by_step():
    for one in of("canary", "Service").values():
        assert one["metadata"]["annotations"]["serving.knative.dev/rollout-duration"] == "300s"
        assert one["spec"]["traffic"] == [{"latestRevision": True, "percent": 100, "tag": "latest"}]


def test_with_auth_no_function_can_be_reached_from_outside():
    assert {one["metadata"]["labels"]["networking.knative.dev/visibility"] for one in of("auth", "Service").values()} == {"cluster-local"}


def test_an_alert_asks_for_metrics_that_there_are():
    shown = (ROOT / "docs" / "reference" / "metrics.md").read_text() + (ROOT / "docs" / "kafka.md").read_text()
    rules = yaml.safe_load((EVENTING / "components" / "prometheus" / "mlaas.prometheusrule.yaml").read_text())
    asked = {name for group in rules["spec"]["groups"] for rule in group["rules"] for name in re.findall(r"mlaas_\w+", rule["expr"])}
    assert asked
    assert {name.removesuffix("_count") for name in asked} <= set(re.findall(r"mlaas_\w+", shown))


def test_the_production_overlay_offers_every_component():
    offered = (EVENTING / "overlays" / "production" / "kustomization.yaml").read_text()
    assert [one.name for one in components(EVENTING) if f"#  - ../../components/{one.name}\n" not in offered] == []


def test_the_guide_lists_every_overlay_and_component_and_the_knobs_as_they_are():
    guide = (ROOT / "docs" / "deploy.md").read_text()
    for folder in (*overlays(EVENTING)[1:], *components(EVENTING)):
        assert f"| `{folder.name}` |" in guide
    for knob, value in BASE["classify.service.yaml"]["spec"]["template"]["metadata"]["annotations"].items():
        assert f"`{knob}` | {value}" in guide
    delivery = BASE["mlaas.broker.yaml"]["spec"]["delivery"]
    assert f"`delivery.retry`, `backoffDelay` | {delivery['retry']}, {delivery['backoffDelay']} |" in guide
    job, index = (BASE[f"{name}.jobsink.yaml"]["spec"]["job"]["spec"] for name in ("train", "index"))
    assert f"`activeDeadlineSeconds` | {job['activeDeadlineSeconds']} (index {index['activeDeadlineSeconds']})" in guide
