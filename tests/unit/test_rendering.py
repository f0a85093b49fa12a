"""`mlaas render`: a training as what a cluster runs, held against the schemas of Kubernetes, Kubeflow's Trainer and Katib."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mlaas import events, rendering, settings
from mlaas.cli import app
from mlaas.contracts import TrainRequest, parse
from mlaas.documents import shared
from mlaas.errors import InvalidRequest
from mlaas.jobs import read_event
from mlaas.settings import Settings
from mlaas.tasks import Tasks
from mlaas.testing.manifest_check import files, problems
from mlaas.training.katib_trial import Printer, main, values_of
from mlaas.training.watch import Dismissed

EVENTING = Path(__file__).parents[2] / "eventing"
RATE, BATCH, PRECISION = "model_train.optimizer.init_lr", "model_train.batch_size", "model_train.precision"
SEARCH = {
    "parameters": {
        RATE: {"low": 1e-5, "high": 1e-3, "log": True},
        BATCH: {"choices": [8, 16]},
        "model_train.epochs": {"low": 1, "high": 4},
        PRECISION: {"choices": ["fp32", "bf16"]},
    },
    "trials": 12,
    "parallel": 3,
    "metric": "macro_f1",
}


def asked(**more):
    return {
        "model": {"path": "artefacts/checkpoint", "storage_type": "s3", "objective": "text-classification"},
        "dataset": {"path": "artefacts/rows.jsonl", "storage_type": "s3"},
        "model_save": {"path": "artefacts/models/birds", "storage_type": "s3"},
        **more,
    }


def rendered(render, **wanted):
    one = rendering.Wanted(name="birds", **wanted)
    found = render(one, rendering.training_job(one), '{"id": "1"}')
    assert [each for resource in found for each in problems(resource)] == []
    return {resource["kind"]: resource for resource in found}


def experiment(search=SEARCH, **wanted):
    one = rendering.Wanted(name="birds", **wanted)
    found = rendering.experiment(parse(TrainRequest, asked(search=search)), one, rendering.training_job(one))
    assert [each for resource in found for each in problems(resource)] == []
    trial = found[1]["spec"]["trialTemplate"]["trialSpec"]
    assert problems({**trial, "metadata": {**trial["metadata"], "name": "trial"}}) == []
    return {resource["kind"]: resource for resource in found}


def test_an_indexed_job_gives_each_pod_its_rank_and_the_name_of_the_first():
    found = rendered(rendering.indexed_job, ranks=3, queue="gpus", gpus=1, image="registry.example.org/train:1")
    job, service = found["Job"], found["Service"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 3, 3)
    assert job["spec"]["backoffLimit"] == 9
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    assert (values["WORLD_SIZE"], values["MASTER_ADDR"], values["MASTER_PORT"]) == ("3", "birds-0.birds", "29500")
    assert pod["subdomain"] == service["metadata"]["name"] == "birds"
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == "registry.example.org/train:1"


def test_the_pods_of_an_indexed_job_are_those_of_the_jobsink_but_for_their_ranks():
    base = yaml.safe_load((EVENTING / "base" / "train.jobsink.yaml").read_text())["spec"]["job"]["spec"]["template"]["spec"]
    pod = rendered(rendering.indexed_job, ranks=2)["Job"]["spec"]["template"]["spec"]
    assert pod["securityContext"] == base["securityContext"]
    for name in ("securityContext", "envFrom", "resources", "command"):
        assert pod["containers"][0][name] == base["containers"][0][name]


def test_the_ranks_have_the_label_by_which_they_may_reach_each_other_and_find_the_broker():
    policy = next(one for file, one in files(EVENTING) if file.name == "ranks.networkpolicy.yaml")
    binding = next(one for file, one in files(EVENTING) if file.name == "jobs.sinkbinding.yaml")
    runtime = next(one for file, one in files(EVENTING) if one["kind"] == "TrainingRuntime")
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    job = rendered(rendering.indexed_job, ranks=2)["Job"]
    for metadata, template in (
        (job["metadata"], job["spec"]["template"]),
        (node["template"]["metadata"], node["template"]["spec"]["template"]),
    ):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert binding["spec"]["subject"]["selector"]["matchLabels"].items() <= metadata["labels"].items()


def test_a_trainjob_runs_on_the_runtime_of_the_component_and_reads_the_event():
    spec = rendered(rendering.train_job, ranks=2, gpus=4, queue="gpus")["TrainJob"]["spec"]
    runtime = next(one for file, one in files(EVENTING) if one["kind"] == "TrainingRuntime")
    assert spec["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert (spec["trainer"]["numNodes"], spec["trainer"]["numProcPerNode"]) == (2, 4)
    (override,) = spec["podTemplateOverrides"]
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert override["targetJobs"] == [{"name": node["name"]}]
    (container,) = override["spec"]["containers"]
    assert container["name"] == node["template"]["spec"]["template"]["spec"]["containers"][0]["name"]
    (mounted,) = container["volumeMounts"]
    assert {"name": "K_EVENT_PATH", "value": mounted["mountPath"]} in spec["trainer"]["env"]
    assert override["spec"]["volumes"] == [{"name": mounted["name"], "configMap": {"name": "birds"}}]


def test_the_runtime_of_trainjobs_has_the_pod_of_the_jobsink():
    base = yaml.safe_load((EVENTING / "base" / "train.jobsink.yaml").read_text())["spec"]["job"]["spec"]["template"]["spec"]
    runtime = next(one for file, one in files(EVENTING) if one["kind"] == "TrainingRuntime")
    pod = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (own,), (known,) = pod.pop("containers"), base.pop("containers")
    assert pod == base
    assert {name: own[name] for name in ("env", "envFrom", "image", "securityContext", "volumeMounts")} == {
        name: known[name] for name in ("env", "envFrom", "image", "securityContext", "volumeMounts")
    }


def test_an_experiment_searches_what_the_request_says():
    spec = experiment()["Experiment"]["spec"]
    assert (spec["maxTrialCount"], spec["parallelTrialCount"]) == (12, 3)
    assert spec["objective"]["type"] == "maximize"
    assert spec["objective"]["objectiveMetricName"] == "macro_f1"
    assert spec["earlyStopping"] == {"algorithmName": "medianstop"}
    assert {one["name"]: (one["parameterType"], one["feasibleSpace"]) for one in spec["parameters"]} == {
        RATE: ("double", {"min": "1e-05", "max": "0.001", "distribution": "logUniform"}),
        BATCH: ("discrete", {"list": ["8", "16"]}),
        "model_train.epochs": ("int", {"min": "1", "max": "4", "distribution": "uniform"}),
        PRECISION: ("categorical", {"list": ["fp32", "bf16"]}),
    }


def test_every_parameter_of_an_experiment_reaches_the_trials_command():
    spec = experiment(queue="cpus")["Experiment"]["spec"]
    template = spec["trialTemplate"]
    (container,) = template["trialSpec"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == template["primaryContainerName"]
    references = {one["name"]: one["reference"] for one in template["trialParameters"]}
    assert set(references.values()) == {one["name"] for one in spec["parameters"]} | {"${trialSpec.Name}"}
    given = " ".join(container["args"])
    for name, reference in references.items():
        assert f"${{trialParameters.{name}}}" in given
        given = given.replace(f"${{trialParameters.{name}}}", "t-1" if reference == "${trialSpec.Name}" else "8")
    assert values_of(given.split()[3:-1]) == {RATE: 8.0, BATCH: 8, "model_train.epochs": 8}
    assert template["trialSpec"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "cpus"


@pytest.mark.parametrize(
    ("search", "field"),
    [
        (None, "search"),
        ({**SEARCH, "timeout_minutes": 5}, "search.timeout_minutes"),
        ({**SEARCH, "parameters": {"seed": {"choices": [1, 2]}}}, "search.parameters.seed"),
        ({**SEARCH, "metric": "perplexity"}, "search.metric"),
    ],
)
def test_a_search_that_katib_cannot_do_is_refused_by_its_field(search, field):
    with pytest.raises(InvalidRequest) as refused:
        experiment(search)
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["Birds", "1st", "a" * 51, "a_b", "-a", ""])
def test_a_name_that_kubernetes_does_not_take_is_refused(name):
    with pytest.raises(InvalidRequest, match="takes no such name"):
        rendering.Wanted(name=name)


def test_what_is_no_jobsink_is_refused(tmp_path):
    (tmp_path / "other.yaml").write_text("kind: Service\nspec: {}\n")
    for file in (tmp_path / "other.yaml", tmp_path / "absent.yaml"):
        with pytest.raises(InvalidRequest, match="no JobSink"):
            rendering.training_job(rendering.Wanted(name="birds"), file)


@pytest.mark.parametrize("one", ["seed=1", "model_train.batch_size=many", f"{RATE}", "model_train.batch_size=inf"])
def test_a_value_that_no_setting_takes_is_refused(one):
    with pytest.raises(InvalidRequest):
        values_of([one])


def test_a_trial_prints_its_figures_as_katib_reads_them_and_then_ends(capsys):
    Printer().evaluated(1, {"macro_f1": 0.5, "loss": 1, "labels": ["a"]})
    with pytest.raises(Dismissed):
        Printer().fitted({"macro_f1": 0.75})
    assert capsys.readouterr().out == "macro_f1=0.5\nloss=1.0\nmacro_f1=0.75\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A platform's home with a checkpoint's files and rows, so that a request is accepted."""
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path))
    settings.current.cache_clear()
    root = settings.current().artefacts
    (root / "checkpoint").mkdir(parents=True)
    (root / "checkpoint" / "config.json").write_text("{}")
    (root / "checkpoint" / "model.safetensors").write_bytes(b"")
    (root / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
    yield tmp_path
    shared().close()
    settings.current.cache_clear()


def local(**more):
    return json.dumps(
        {
            "model": {"path": "checkpoint", "storage_type": "local", "objective": "text-classification"},
            "dataset": {"path": "rows.jsonl", "storage_type": "local"},
            "model_save": {"path": "models/birds", "storage_type": "local"},
            **more,
        }
    )


@pytest.mark.parametrize("kind", ["job", "trainjob"])
def test_the_command_records_one_task_and_prints_what_runs_it(home, kind, tmp_path):
    ran = [CliRunner().invoke(app, ["render", kind, "--request", local(), "--ranks", "2"]) for _ in range(2)]
    assert [one.exit_code for one in ran] == [0, 0], ran[0].output
    assert ran[0].stdout == ran[1].stdout
    resources = list(yaml.safe_load_all(ran[0].stdout))
    assert [each for resource in resources for each in problems(resource)] == []
    (task,) = Tasks(shared()).find()[0]
    (tmp_path / "event").write_text(resources[0]["data"]["event"])
    event = read_event(Settings(event_path=tmp_path))
    assert (event["type"], event["subject"]) == (events.event_type("train", "accepted"), task["task_id"])
    assert resources[-1]["metadata"]["name"] == f"train-{task['task_id'][:8]}"
    assert not Tasks(shared()).documents.find("tasks", {"outbox_pending": True}, limit=9)  # no JobSink starts a Job of its own


@pytest.mark.parametrize("kind", ["job", "trainjob"])
def test_a_training_has_as_many_pods_as_its_request_has_processes(home, kind):
    ran = CliRunner().invoke(app, ["render", kind, "--request", local(model_train={"processes": 3})])
    assert ran.exit_code == 0, ran.output
    spec = list(yaml.safe_load_all(ran.stdout))[-1]["spec"]
    pods = {"job": lambda: (spec["completions"], spec["parallelism"]), "trainjob": lambda: (spec["trainer"]["numNodes"],) * 2}
    assert pods[kind]() == (3, 3)


@pytest.mark.parametrize(
    "change",
    [{"dataset": {"path": "absent.jsonl", "storage_type": "local"}}, {"search": {**SEARCH, "metric": "loss"}}],
    ids=["absent", "search"],
)
def test_a_request_that_cannot_be_served_is_refused_and_nothing_is_recorded(home, change):
    ran = CliRunner().invoke(app, ["render", "job", "--request", local(**change)])
    assert ran.exit_code == 3
    assert not Tasks(shared()).find()[0]


def test_the_command_prints_an_experiment_and_records_nothing(home):
    ran = CliRunner().invoke(app, ["render", "katib", "--request", local(search={**SEARCH, "metric": "loss"})])
    assert ran.exit_code == 0, ran.output
    kinds = [one["kind"] for one in yaml.safe_load_all(ran.stdout)]
    assert kinds == ["ConfigMap", "Experiment"]
    assert not Tasks(shared()).find()[0]


@pytest.mark.training
def test_a_trial_trains_with_the_values_prints_its_figures_and_publishes_nothing(home, capsys):
    import shutil

    import torch

    from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    root = settings.current().artefacts
    shutil.rmtree(root / "checkpoint")
    write_checkpoint(root / "checkpoint")
    write_rows(root / "rows.jsonl")
    (home / "request").write_text(local(search={**SEARCH, "metric": "accuracy"}))
    assert main([str(home / "request"), "--trial", "birds-1", "model_train.epochs=2", f"{RATE}=0.001"]) == 0
    torch.set_num_threads(before)
    printed = [line.partition("=")[0] for line in capsys.readouterr().out.splitlines()]
    assert printed.count("accuracy") == 3  # two epochs, and the weights that it ends with
    assert not list(root.glob("models/birds/**/*.onnx"))
    assert not list(root.glob("models/birds/.draft-*/*"))
