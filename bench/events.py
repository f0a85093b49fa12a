"""From Kafka to Kafka through the classify function: the platform against a bare loop that calls the same engine.

    python bench/events.py

Starts Apache Kafka on loopback and sends classify requests, CloudEvents of one text and of eight, at once. They are answered by, in turn:

- loop: a process that polls with kafka-python, calls `classifier.classify` for each event, produces its answer, and commits
- merging loop: the same, but all texts of a poll go through the engine together
- platform: `mlaas up`, with its KafkaSource, Broker, Trigger, function over HTTP, reply, Trigger and KafkaSink

Events per second are counted from the first that is sent to the last answer, which a consumer in this process reads; every event has to be
answered exactly once. Then events are sent at half of the pace that the platform had, at times that do not wait for answers, and each
way's latency is taken from sending to reading. CPU times are of the processes that answer, without Kafka's.

Prints and writes bench/results/events.json; returns 1 where the platform is below 80% of the loop's events per second with one text.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import machine
import serving_throughput
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from mlaas import events
from mlaas.local.kafka_server import KafkaServer, free_port

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "events.json"
PROMISED, PARTITIONS = 0.8, 4
WAYS = ("loop", "merging loop", "platform")
SILENCE_SECONDS = 60.0
LOOP = """
import json, sys
from kafka import KafkaConsumer, KafkaProducer
from mlaas import classifier, models
from mlaas.contracts import ModelRef
kafka, merging = sys.argv[1], sys.argv[2] == "merging loop"
model = models.load(ModelRef(path="bundle")).model
consumer = KafkaConsumer("bench.requests", bootstrap_servers=kafka, group_id="bench", enable_auto_commit=False, auto_offset_reset="latest")
producer = KafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=2)
while not consumer.assignment():
    consumer.poll(timeout_ms=100)
for partition in consumer.assignment():
    consumer.position(partition)
print("ready", flush=True)
def answer(record, found):
    headers = [("ce_causationid", dict(record.headers)["ce_id"])]
    value = json.dumps({"predictions": [one.model_dump() for one in found]}).encode()
    producer.send("bench.events", value=value, key=record.key, headers=headers)
while True:
    records = [record for batch in consumer.poll(timeout_ms=100).values() for record in batch]
    texts = [json.loads(record.value)["predict_input"]["input_text"] for record in records]
    if merging and records:
        found = iter(classifier.classify(model, [text for each in texts for text in each]))
        for record, each in zip(records, texts):
            answer(record, [next(found) for _ in each])
    else:
        for record, each in zip(records, texts):
            answer(record, classifier.classify(model, each))
    if records:
        producer.flush()
        consumer.commit()
"""


@dataclass(frozen=True)
class Way:
    """How events are answered: by processes that read one topic and write another."""

    kafka: str
    requests: str
    answers: str
    pids: Callable[[], list[int]]

    def cpu_seconds(self) -> float:
        """Of the processes that answer."""
        return sum(serving_throughput.Server(0, pid).cpu_seconds() for pid in self.pids())


@contextmanager
def looping(home: Path, kafka: str, way: str) -> Iterator[Way]:
    """The bare loop, ready."""
    command = [sys.executable, "-c", LOOP, kafka, way]
    with subprocess.Popen(command, cwd=ROOT, env=serving_throughput.environment(home), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n", "the loop did not start"
            yield Way(kafka, "bench.requests", "bench.events", lambda: [process.pid])
        finally:
            process.terminate()


@contextmanager
def up(home: Path, kafka: str) -> Iterator[Way]:
    """`mlaas up`, ready; it starts the function with the first event."""
    command = [sys.executable, "-m", "mlaas.cli", "up", "--json", "--port", str(free_port()), "--kafka", kafka]
    with subprocess.Popen(
        command, cwd=ROOT, env=serving_throughput.environment(home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout
            url = json.loads(process.stdout.readline())["url"]

            def pids() -> list[int]:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    running = json.load(answer)["functions"].values()
                return [process.pid, *(one["pid"] for one in running if one["pid"])]

            yield Way(kafka, "mlaas.requests", "mlaas.events", pids)
        finally:
            process.terminate()


class Reader:
    """Reads the answers from now on: when the first to each event came, and how many came."""

    def __init__(self, way: Way) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=way.kafka, enable_auto_commit=False, fetch_max_wait_ms=20)
        partitions = [TopicPartition(way.answers, number) for number in range(PARTITIONS)]
        self._consumer.assign(partitions)
        self._consumer.seek_to_end(*partitions)
        for partition in partitions:  # seeking is lazy
            self._consumer.position(partition)
        self.came: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def read(self, wanted: set[str], further: float = 1.0) -> None:
        """Until all of `wanted` are answered, and `further` seconds for answers that come twice."""
        heard = time.perf_counter()
        while time.perf_counter() - heard < (SILENCE_SECONDS if len(self.came) < len(wanted) else further):
            batches = self._consumer.poll(timeout_ms=100)
            now = time.perf_counter()
            for record in (record for batch in batches.values() for record in batch):
                cause = dict(record.headers).get("ce_causationid", b"").decode()
                if cause in wanted:
                    heard = now
                    self.came.setdefault(cause, now)
                    self.counts[cause] += 1
        self._consumer.close()


def requests(count: int, texts: int) -> dict[str, Any]:
    """Kafka records of `count` requests of `texts` texts each, by the event's id; keys of 64 authors."""
    made = {}
    bodies = [json.loads(body) for body in serving_throughput.bodies(texts)]
    for number, body in enumerate(islice(cycle(bodies), count)):
        event = events.new("classify", body, source="/bench", key=f"author-{number % 64}")
        made[event["id"]] = events.to_kafka(event)
    return made


def at_once(way: Way, count: int, texts: int) -> dict[str, Any]:
    """Events per second, and CPU milliseconds for one."""
    records, reader = requests(count, texts), Reader(way)
    producer = KafkaProducer(bootstrap_servers=way.kafka, acks="all", linger_ms=5)
    cpu, began = way.cpu_seconds(), time.perf_counter()
    for headers, key, value in records.values():
        producer.send(way.requests, value=value, key=key, headers=headers)
    reader.read(set(records))
    used = way.cpu_seconds() - cpu
    producer.close()
    _all_once(reader, records)
    return {"events_per_second": count / (max(reader.came.values()) - began), "cpu_ms_per_event": used * 1000 / count}


def paced(way: Way, pace: float, seconds: float, texts: int) -> dict[str, Any]:
    """Milliseconds from sending to reading at `pace` events per second, which come by chance and wait for no answer."""
    records, reader, chance = requests(max(20, int(pace * seconds)), texts), Reader(way), random.Random(0)
    producer = KafkaProducer(bootstrap_servers=way.kafka, acks="all", linger_ms=0)
    reading = threading.Thread(target=reader.read, args=(set(records),))
    reading.start()
    due, sent = time.perf_counter(), {}
    for id, (headers, key, value) in records.items():
        due += chance.expovariate(pace)
        time.sleep(max(0.0, due - time.perf_counter()))
        sent[id] = due
        producer.send(way.requests, value=value, key=key, headers=headers)
    reading.join()
    producer.close()
    _all_once(reader, records)
    taken = sorted((reader.came[id] - sent[id]) * 1000 for id in records)
    return {"pace": round(pace, 1), "p50_ms": round(statistics.median(taken), 1), "p99_ms": round(taken[int(len(taken) * 0.99)], 1)}


def _all_once(reader: Reader, records: dict[str, Any]) -> None:
    assert set(reader.came) == set(records), f"{len(records) - len(reader.came)} of {len(records)} events were not answered"
    assert set(reader.counts.values()) == {1}, "an event was answered twice"


def measured(home: Path, kafka: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each way and number of texts: medians of rounds that alternate."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = {(texts, way): [] for texts in options.texts for way in WAYS}
    latencies: dict[tuple[int, str], dict[str, Any]] = {}
    for number in range(options.rounds):
        for way in reversed(WAYS):  # the platform first: the others are sent half of its pace
            with up(home, kafka) if way == "platform" else looping(home, kafka, way) as one:
                at_once(one, 200, 1)  # warms
                for texts in options.texts:
                    figures = at_once(one, max(50, options.events // texts), texts)
                    found[texts, way].append(figures)
                    print(f"{texts} texts  {way:13}", *(f"{key} {value:.2f}" for key, value in figures.items()), sep="  ", flush=True)
                    if number == options.rounds - 1:
                        pace = statistics.median(each["events_per_second"] for each in found[texts, "platform"]) / 2
                        latencies[texts, way] = paced(one, pace, options.seconds, texts)
                        print(f"{texts} texts  {way:13}", *(f"{k} {v}" for k, v in latencies[texts, way].items()), sep="  ", flush=True)
    rows = []
    for (texts, way), each in found.items():
        row = {name: round(statistics.median(one[name] for one in each), 2) for name in ("events_per_second", "cpu_ms_per_event")}
        rows.append({"texts": texts, "way": way, **row, **latencies[texts, way]})
    for row in rows:
        loop = next(one for one in rows if one["texts"] == row["texts"] and one["way"] == "loop")
        row["ratio"] = round(row["events_per_second"] / loop["events_per_second"], 2)
    return rows


def table(record: dict[str, Any]) -> str:
    """What `record` says, as Markdown."""
    names = ["texts", "way", "events_per_second", "ratio", "cpu_ms_per_event", "pace", "p50_ms", "p99_ms"]
    titles = ["texts", "way", "events/s", "times the loop", "CPU ms per event", "at events/s", "p50 ms", "p99 ms"]
    return machine.markdown(titles, [[row[name] for name in names] for row in record["rows"]])


def main() -> int:
    """Measure, print, record; 1 if the platform is slower than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2000, help="of one text; of eight texts, an eighth as many")
    parser.add_argument("--texts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the latency's measurement")
    parser.add_argument("--home", type=Path, help="where the bundle `bundle` is already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        home = Path(name)
        if options.home:
            shutil.copytree(options.home / "bundle", home / "bundle")
        else:
            serving_throughput.prepare(home)
        kafka = stack.enter_context(KafkaServer(home / "kafka", free_port(), free_port())).bootstrap
        admin = KafkaAdminClient(bootstrap_servers=kafka)
        admin.create_topics({topic: {"num_partitions": PARTITIONS} for topic in ("bench.requests", "bench.events")}, wait_for_metadata=True)
        admin.close()
        rows = measured(home, kafka, options)
    RESULTS.write_text(json.dumps({"command": machine.command(), **machine.described(), "rows": rows}, indent=1) + "\n")
    for row in rows:
        print(*(f"{key} {value}" for key, value in row.items()), sep="  ")
    ratio = next(row["ratio"] for row in rows if row["way"] == "platform")
    return 0 if ratio >= PROMISED else 1


if __name__ == "__main__":
    sys.exit(main())
