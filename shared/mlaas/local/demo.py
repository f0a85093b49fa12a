"""`mlaas demo`: the main job from end to end, on real Kafka, in front of the user's eyes.

Training, event-chained indexing, predictions by Kafka and by HTTP, and a function that is killed. All data are the
synthetic samples of `mlaas.samples`; the checkpoints are real and come as packages. Exit status 0 means that every
step happened; everything asked, every reply and every figure is in the result file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudevents.http import CloudEvent
from rich.rule import Rule
from rich.table import Table

from .. import display, events, logs, progress_bars
from ..client import Client, EventClient
from ..errors import MlaasError
from ..samples.installation import install
from ..settings import current
from .kafka_server import free_port
from .platform import Platform
from .timeline import Timeline

__all__ = ["run"]

Row = tuple[dict[str, Any], str, float, str]  # the reply's data, by which way, seconds, where they went

STRINGS = (
    "Istituto Nazionale di Fisica Nucleare, Laboratori Nazionali di Frascati, I-00044 Frascati, Italy",
    "Ist Nazl Fis Nucl, Sez Padova, I-35131 Padua, Italy",
    "Dipartimento di Fisica, Università di Roma Tor Vergata and INFN, Roma, Italy",
    "INAF, Osservatorio Astrofisico di Catania, Italy",
)
SENTENCE = "We report a search for dark [MASK] and for gravitational [MASK] from black [MASK]."
QUERIES = ("flavour oscillations of neutrinos over long baselines", "a silicon tracker with fast timing")
TRAIN: Mapping[str, Any] = {
    "model": {"path": "checkpoints/minilm", "storage_type": "local", "objective": "text-classification"},
    "model_train": {"epochs": 2, "batch_size": 32, "max_length": 64,
                    "optimizer": {"name": "adamw", "init_lr": 3e-4, "num_warm_steps": 20, "weight_decay_rate": 0.01}},
    "dataset": {"path": "samples/affiliations.tsv", "storage_type": "local", "train_test_split": 0.1,
                "text_column": "affiliation", "label_column": "label"},
    "model_save": {"path": "models/infn-structures", "storage_type": "local"},
    "index_after": [{"model": {"name": "minilm"},
                     "dataset": {"path": "samples/abstracts.jsonl", "storage_type": "local",
                                 "loader_kwargs": {"page_content_column": "abstract", "id_column": "id"}},
                     "vector_store_save": {"path": "indexes/abstracts", "format": "vector_store", "storage_type": "local"}}],
}  # fmt: skip
TRAIN_LM: Mapping[str, Any] = {
    "model": {"path": "checkpoints/cassette", "storage_type": "local", "objective": "masked-lm"},
    "model_train": {
        "epochs": 20,
        "batch_size": 16,
        "max_length": 128,
        "optimizer": {"name": "adamw", "init_lr": 1e-3, "num_warm_steps": 20},
    },
    "dataset": {"path": "samples/texts.jsonl", "storage_type": "local", "train_test_split": 0.1, "text_column": "text"},
    "model_save": {"path": "models/physics-lm", "storage_type": "local"},
}


def run(output: Path, as_json: bool = False) -> int:
    """Run the demo and write `output`; the exit status. With `as_json` only the figures are shown, as JSON, at the end."""
    display.console.quiet = as_json
    home = Path(tempfile.mkdtemp(prefix="mlaas-demo-"))
    logs.configure(home / "platform.log")
    show = Demo(home, as_json)
    try:
        show.play()
    except (MlaasError, KeyboardInterrupt) as error:
        why = error if isinstance(error, MlaasError) else MlaasError("interrupted")
        display.error(why)
        display.note(f"The platform has stopped. Its logs are in {home}.")
        show.write(output, failed=why.detail)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    show.write(output)
    display.note(f"Every request, reply and figure is in {output}. Nothing is left running.")
    shutil.rmtree(home, ignore_errors=True)
    if as_json:
        display.json_(show.figures)
    return 0


class Demo:
    """One run: what happened so far is in `requests`, `replies`, `arrived` and `figures`."""

    def __init__(self, home: Path, as_json: bool) -> None:
        self.started = time.perf_counter()
        self.settings = dataclasses.replace(current(), home=home, root=None, cache=None, documents=None)
        self.requests: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self.arrived: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {}
        self.bar = progress_bars.progress_bar(disable=as_json)
        self.rows: dict[str, Any] = {}

    def play(self) -> None:
        """The whole demo. Raises MlaasError where a step does not happen."""
        self._say("Sample data and checkpoints (all data are synthetic)")
        install(self.settings.artefacts)
        environment = {**os.environ, "MLAAS_HOME": str(self.settings.home)}
        export = subprocess.Popen(
            [sys.executable, "-m", "mlaas.cli", "export", "-m", "local:checkpoints/minilm",
             "--objective", "no-objective", "--save", "models/minilm"],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
        self._say("The platform: Apache Kafka, one process for each function, one HTTP port")
        try:
            with Platform(self.settings, port=free_port(), kafka_port=free_port(), say=self._note) as platform:
                self.figures["platform_start_seconds"] = round(time.perf_counter() - self.started, 1)
                with EventClient(platform.bootstrap) as kafka, Timeline(platform.bootstrap, self._seen) as timeline:
                    self._finish_export(export)
                    self._train(kafka, timeline)
                    self._ask(platform, kafka, timeline)
                    self._kill(platform, kafka, timeline)
                self._note("stopping the platform")
        finally:
            if export.poll() is None:
                export.kill()
        self.figures["total_seconds"] = round(time.perf_counter() - self.started, 1)

    def write(self, output: Path, *, failed: str | None = None) -> None:
        """Write what happened as JSON, atomically."""
        result = {"failed": failed, "figures": self.figures, "requests": self.requests, "replies": self.replies, "events": self.arrived}
        part = output.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        part.replace(output)

    def _finish_export(self, export: subprocess.Popen[bytes]) -> None:
        self._note("exporting MiniLM to ONNX for the index")
        said = export.communicate()[1]
        if export.returncode != 0:
            raise MlaasError("the export of MiniLM failed", remedy=said.decode(errors="replace").strip()[-500:])
        self.figures["export_minilm_until_seconds"] = round(time.perf_counter() - self.started, 1)

    def _train(self, kafka: EventClient, timeline: Timeline) -> None:
        self._say("Training by events: a classifier of affiliations, then a language model of physics abstracts")
        asked = [events.new("train", dict(request), source="/mlaas/demo") for request in (TRAIN, TRAIN_LM)]
        with self.bar:
            for event in asked:
                self._publish(kafka, event)
            for event in asked:
                done = self._until(timeline, event, "train", "succeeded", seconds=900)
                self.figures[f"train_{done.data['request']['model']['objective']}_seconds"] = done.data["stats"]["elapsed"]
                self._show_task(done.data)
            self._until(timeline, asked[0], "index", "succeeded", seconds=120)

    def _ask(self, platform: Platform, kafka: EventClient, timeline: Timeline) -> None:
        self._say("Asking by Kafka and by HTTP")
        requests: dict[str, dict[str, Any]] = {
            "classify": {"model": {"name": "infn-structures"}, "predict_input": {"input_text": list(STRINGS)}},
            "fill_mask": {"model": {"name": "physics-lm"}, "predict_input": {"input_text": [SENTENCE]}, "top_k": 3},
            "search": {"dataset": {"name": "abstracts"}, "search_input": {"input_text": list(QUERIES)}, "top_k": 2},
        }
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column, share in (("asked", 5), ("answer", 6), ("Kafka ms", None), ("HTTP ms", None)):
            table.add_column(column, overflow="fold", ratio=share, justify="left" if share else "right")
        for capability, request in requests.items():
            ways = self._by_kafka(kafka, timeline, capability, request), self._by_http(platform.url, capability, request)
            times = [f"{seconds * 1000:.0f}" for _, _, seconds, _ in ways]
            for row in _rows(capability, request, ways[0][0]):
                table.add_row(*row, *times)
                times = ["", ""]
            for _, by, _, timing in ways:
                table.add_row(f"[dim]{capability} by {by}[/]", f"[dim]{timing}[/]", "", "")
            table.add_section()
            for _, by, seconds, _ in ways:
                self.figures[f"{capability}_by_{by.lower()}_ms"] = round(seconds * 1000, 1)
        display.console.print(table)
        self._note("The first answer by Kafka includes the start of the function's process, from zero.")

    def _kill(self, platform: Platform, kafka: EventClient, timeline: Timeline) -> None:
        self._say("A function is killed, and the next event is answered")
        pid = platform.state()["functions"]["classify"]["pid"]
        os.kill(pid, signal.SIGKILL)
        request = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": [STRINGS[0]]}}
        data, _, seconds, _ = self._by_kafka(kafka, timeline, "classify", request)
        now = platform.state()["functions"]["classify"]["pid"]
        self._note(f"process {pid} was killed with -9; process {now} answered {data['predictions'][0]['label']} after {seconds:.2f} s")
        self.figures["answer_after_kill_seconds"] = round(seconds, 2)
        if now == pid:
            raise MlaasError("the killed process still answers")

    def _by_kafka(self, kafka: EventClient, timeline: Timeline, capability: str, request: dict[str, Any]) -> Row:
        event = events.new(capability, request, source="/mlaas/demo")
        started = time.perf_counter()
        self._publish(kafka, event)
        arrived, reply = timeline.wait(lambda one: one.get("causationid") == event["id"], seconds=60, what=f"the reply to {capability}")
        if not reply["type"].endswith(".succeeded.v1"):
            raise MlaasError(f"{capability} was refused: {reply.data.get('detail')}")
        return reply.data, "Kafka", arrived - started, reply.get("servertiming") or ""

    def _by_http(self, url: str, capability: str, request: dict[str, Any]) -> Row:
        with Client(url) as client:
            answer = client.ask(capability, request)
        self.requests.append({"by": "HTTP", "function": capability, "request": request})
        self.replies.append({"by": "HTTP", "function": capability, "reply": answer.data, "seconds": round(answer.seconds, 4)})
        return answer.data, "HTTP", answer.seconds, answer.timing

    def _publish(self, kafka: EventClient, event: CloudEvent) -> None:
        self.requests.append({"by": "Kafka", "event": events.to_json(event)})
        kafka.send([event])

    def _until(self, timeline: Timeline, first: CloudEvent, capability: str, state: str, *, seconds: float) -> CloudEvent:
        """The event of the chain that `first` began in which `capability` comes to `state`."""
        ends = {events.event_type(capability, end) for end in (state, "failed", "cancelled")}
        _, event = timeline.wait(
            lambda one: one["type"] in ends and one.get("correlationid") == first["id"], seconds=seconds, what=f"{capability} {state}"
        )
        if event["type"] != events.event_type(capability, state):
            raise MlaasError(f"{capability} ended otherwise: {event.data.get('error') or event.data.get('detail')}")
        return event

    def _seen(self, event: CloudEvent) -> None:
        self.arrived.append({"at_seconds": round(time.perf_counter() - self.started, 3), "event": events.to_json(event)})
        if event["type"].endswith(".progressed.v1"):
            self._progress(event)
            return
        key = event.get("subject") or event["id"]
        if key in self.rows:
            self.bar.update(self.rows[key], completed=100)
        console = self.bar.console if self.bar.live.is_started and not self.bar.disable else display.console
        console.print(f"  [dim]event[/] {event['type']} [dim]{key[:8]} at {time.perf_counter() - self.started:.1f} s[/]")

    def _progress(self, event: CloudEvent) -> None:
        progress, key = event.data["progress"], event["subject"]
        if key not in self.rows:
            self.rows[key] = self.bar.add_task("", total=100)
        loss = f" loss {progress['loss']:.3f}" if progress.get("loss") is not None else ""
        self.bar.update(
            self.rows[key], completed=progress["percent"], description=f"{event['type'].split('.')[3]} {key[:8]} {progress['phase']}{loss}"
        )

    def _show_task(self, task: dict[str, Any]) -> None:
        shown = {name: task.get(name) for name in ("task_id", "task_status", "stats", "history", "evaluation", "dataset", "result")}
        shown["history"] = {name: value for name, value in task["history"].items() if name != "steps"}
        shown["evaluation"] = {name: value for name, value in task["evaluation"].items() if name not in ("confusion", "per_class")}
        (display.console if self.bar.disable else self.bar.console).print_json(json.dumps(shown, ensure_ascii=False))
        self.figures[f"evaluation_{task['request']['model']['objective']}"] = shown["evaluation"]

    def _say(self, title: str) -> None:
        display.console.print(Rule(title, align="left"))

    def _note(self, line: str) -> None:
        display.console.print(f"  {line}", markup=False)


def _rows(capability: str, request: dict[str, Any], data: dict[str, Any]) -> list[tuple[str, str]]:
    """Texts beside what came back for each."""
    if capability == "search":
        texts = request["search_input"]["input_text"]
        return [(text if rank == 0 else "", f"{one['score']:.2f}  {one['metadata']['title']}")
                for text, found in zip(texts, data["results"], strict=True) for rank, one in enumerate(found)]  # fmt: skip
    texts = request["predict_input"]["input_text"]
    if capability == "classify":
        return [(text, f"{one['label']} ({one['score']:.2f})") for text, one in zip(texts, data["predictions"], strict=True)]
    [one] = data["predictions"]
    masks = [
        ("", f"mask {number}: " + ", ".join(f"{it['token']} {it['probability']:.2f}" for it in mask))
        for number, mask in enumerate(one["masks"], 1)
    ]
    return [(texts[0], one["filled"]), *masks]
