"""What a Trigger does with an answer, which offsets are committed when, and how events pass Kafka and HTTP."""

import base64
import json
import threading
import time
from types import SimpleNamespace

import pytest
from kafka import TopicPartition

from mlaas import events
from mlaas.errors import TooLarge, Unavailable
from mlaas.events import to_http
from mlaas.local.dispatch import IN_FLIGHT_OF_A_PARTITION, Subscription
from mlaas.local.manifests import Route
from mlaas.local.records import Records, from_record

REPLY = {"ce-specversion": "1.0", "ce-id": "2", "ce-source": "/f", "ce-type": "r", "Content-Type": "application/json"}
PARTITION = TopicPartition("t", 0)
REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def event(number=1, data=None):
    return events.build("t", "/s", data or {}, id=str(number))


def record(headers=(), value=b"", key=None, offset=7, partition=3):
    return SimpleNamespace(headers=list(headers), value=value, key=key, topic="t", partition=partition, offset=offset, timestamp=0)


FETCH = 50  # records of a partition that a fake consumer's fetch has at most


class FakeBroker:
    """Keeps what is appended; refuses what has `limit` bytes and more. Its consumer serves `count` events of each partition once.

    The ids of the events of the first partition begin at 0, those of the second at 1000.
    """

    def __init__(self, limit=10**9, count=0, failures=0, partitions=1):
        self.appended, self.limit, self.stopping = [], limit, threading.Event()
        self.count, self.failures, self.committed, self.closed = count, failures, [], False
        self.served = {TopicPartition("t", number): 0 for number in range(partitions)}
        self.stopped, self.ends = set(), {}

    def append(self, topic, event, patience=0.0):
        headers, _, value = events.to_kafka(event)
        if len(value) >= self.limit:
            raise TooLarge("too large")
        self.appended.append((topic, {name: text.decode() for name, text in headers}, value))

    def consumer(self, group):
        if self.failures:
            self.failures -= 1
            raise OSError("no broker")
        return self

    def subscribe(self, topics): ...

    def poll(self, timeout_ms, max_records):
        found = {}
        for partition in set(self.served) - self.stopped:
            first, room = self.served[partition], max_records - sum(map(len, found.values()))
            offsets = range(first, min(self.count, first + room, first + FETCH))
            self.served[partition] += len(offsets)
            written = [(offset, events.to_kafka(event(1000 * partition.partition + offset))) for offset in offsets]
            if written:
                found[partition] = [record(headers, value, key, offset, partition.partition) for offset, (headers, key, value) in written]
        if not found:
            time.sleep(0.01)
        return found

    def pause(self, *partitions):
        self.stopped |= set(partitions)

    def resume(self, *partitions):
        self.stopped -= set(partitions)

    def paused(self):
        return set(self.stopped)

    def commit(self, offsets, timeout_ms):
        self.ends |= {partition.partition: one.offset for partition, one in offsets.items()}
        if PARTITION in offsets:
            self.committed.append(offsets[PARTITION].offset)

    def assignment(self):
        return set(self.served)

    def highwater(self, partition):
        return self.count

    def close(self, autocommit, timeout_ms):
        self.closed = True


def subscription(send, broker, workers=4, **route):
    if not callable(send):
        answer = send
        send = lambda event: answer  # noqa: E731
    return Subscription(Route("some", "g", ("t",), (), "Service", "f", **route), send, broker, "broker", "dead", workers, "http://p")


@pytest.mark.parametrize("status", [0, 404, 408, 409, 429, 500, 502, 503, 504])
def test_statuses_that_knative_retries_are_retried_and_then_dead_lettered(status):
    broker = FakeBroker()
    one = subscription((b"why", status, {}), broker, retry=2, delay=0.5)
    assert [one._deliver(event(), attempt) for attempt in range(3)] == [0.5, 1.0, None]
    ((topic, headers, value),) = broker.appended
    assert (topic, value, headers["ce_knativeerrorcode"]) == ("dead", b"{}", str(status or 503))
    assert base64.b64decode(headers["ce_knativeerrordata"]) == b"why"
    assert headers["ce_knativeerrordest"] == "http://p/f"
    assert (one.counts["retried"], one.counts["dead_lettered"]) == (2, 1)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 405, 410, 413, 422])
def test_other_statuses_are_dead_lettered_at_once(status):
    broker = FakeBroker()
    assert subscription((b"", status, {}), broker, retry=5)._deliver(event(), 0) is None
    assert broker.appended[0][0] == "dead"


def test_linear_backoff_grows_by_the_delay():
    one = subscription((b"", 500, {}), FakeBroker(), retry=9, exponential=False, delay=2)
    assert [one._deliver(event(), attempt) for attempt in range(3)] == [2, 4, 6]


@pytest.mark.parametrize(("header", "waits"), [("7", 7), ("9999", 30), ("0", 1), ("-5", 1), ("nonsense", 1)])
def test_retry_after_is_honoured_up_to_a_bound(header, waits):
    assert subscription((b"", 503, {"Retry-After": header}), FakeBroker(), retry=1, delay=1)._deliver(event(), 0) == waits


def test_a_reply_is_appended_to_the_broker():
    broker = FakeBroker()
    assert subscription((b'{"a": 1}', 200, REPLY), broker)._deliver(event(), 0) is None
    ((topic, headers, value),) = broker.appended
    assert (topic, headers["ce_id"], value) == ("broker", "2", b'{"a":1}')


@pytest.mark.parametrize("answer", [None, (b"", 204, {}), (b"{}", 202, {"Content-Type": "application/json"})])
def test_an_answer_without_an_event_is_the_end(answer):
    broker = FakeBroker()
    assert subscription(answer, broker)._deliver(event(), 0) is None
    assert broker.appended == []


@pytest.mark.parametrize(
    ("answer", "limit"),
    [((b"", 200, {"ce-id": "2"}), 10**9), ((json.dumps("x" * 100).encode(), 200, REPLY), 100)],
    ids=["malformed", "too large"],
)
def test_a_reply_that_cannot_be_kept_dead_letters_its_cause_with_the_reason(answer, limit):
    broker = FakeBroker(limit)
    assert subscription(answer, broker, retry=5)._deliver(event(), 0) is None
    ((topic, headers, _),) = broker.appended
    assert topic == "dead"
    assert b'"detail"' in base64.b64decode(headers["ce_knativeerrordata"])


def test_a_letter_that_is_too_large_keeps_its_attributes():
    broker = FakeBroker(limit=20)
    assert subscription((b"", 400, {}), broker)._deliver(event(data={"text": "x" * 30}), 0) is None
    assert broker.appended[0][1]["ce_id"] == "1"
    assert broker.appended[0][2] == b""


def test_the_reason_is_truncated_to_1024_bytes():
    broker = FakeBroker()
    subscription((b"x" * 5000, 400, {}), broker)._deliver(event(), 0)
    assert base64.b64decode(broker.appended[0][1]["ce_knativeerrordata"]) == b"x" * 1024


def test_a_function_that_does_not_start_is_tried_again_after_a_while():
    def down(event):
        raise Unavailable("down", retry_after=3)

    assert subscription(down, FakeBroker(), retry=1, delay=1)._deliver(event(), 0) == 3


def test_while_the_platform_stops_a_failure_is_no_reason_to_bury_the_event():
    broker = FakeBroker()
    broker.stopping.set()
    assert subscription((b"", 400, {}), broker)._deliver(event(), 0) is not None
    assert broker.appended == []


class Target:
    """Answers as told; counts attempts, and how many were at work at once."""

    def __init__(self, statuses=lambda offset, attempt: 200):
        self.statuses, self.handled, self.lock, self.at_work, self.most = statuses, [], threading.Lock(), 0, 0

    def __call__(self, event):
        offset = int(event["id"])
        with self.lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            attempt = sum(one == offset for one in self.handled)
        try:
            return b"", self.statuses(offset, attempt), {}
        finally:
            with self.lock:
                self.at_work -= 1
                self.handled.append(offset)


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def subscribe():
    started = []

    def start(send, broker, **options):
        one = subscription(send, broker, **options)
        thread = threading.Thread(target=one.run)
        started.append((broker, thread))
        thread.start()
        return one

    yield start
    for broker, thread in started:
        broker.stopping.set()
        thread.join(5)


def ended(broker, offset):
    return lambda: broker.committed and broker.committed[-1] == offset


def test_only_the_finished_prefix_of_a_partition_is_committed(subscribe):
    gate, broker = threading.Event(), FakeBroker(count=6)
    one = subscribe(Target(lambda offset, attempt: 200 if offset != 2 else gate.wait(5) and 200), broker)
    until(lambda: broker.committed and one.counts["in_flight"] == 1)
    time.sleep(0.4)
    assert max(broker.committed) == 2, "offset 2 is not at its end, though 3 to 5 are"
    assert one.counts["lag"] == 4
    gate.set()
    until(ended(broker, 6))


def test_an_event_that_waits_for_its_retry_lets_the_others_pass_and_is_tried_again(subscribe):
    target, broker = Target(lambda offset, attempt: 500 if (offset, attempt) == (0, 0) else 200), FakeBroker(count=5)
    subscribe(target, broker, workers=1, retry=1, delay=0.3)
    until(ended(broker, 5))
    assert target.handled == [0, 1, 2, 3, 4, 0]


def test_an_ordered_subscription_delivers_one_after_the_other(subscribe):
    target, broker = Target(lambda offset, attempt: time.sleep(0.01) or 200), FakeBroker(count=9)
    subscribe(target, broker, ordered=True)
    until(ended(broker, 9))
    assert (target.handled, target.most) == (list(range(9)), 1)


def test_an_ordered_subscription_holds_up_what_is_behind_an_event_that_is_tried_again(subscribe):
    target, broker = Target(lambda offset, attempt: 500 if offset == 2 and attempt < 2 else 200), FakeBroker(count=5)
    one = subscribe(target, broker, ordered=True, retry=3, delay=0.05)
    until(ended(broker, 5))
    assert target.handled == [0, 1, 2, 2, 2, 3, 4]
    assert one.counts["retried"] == 2


def test_an_ordered_subscription_holds_up_no_other_partition_however_many_events_wait(subscribe):
    gate, broker = threading.Event(), FakeBroker(count=300, partitions=2)
    target = Target(lambda number, attempt: 200 if number else gate.wait(10) and 200)
    one = subscribe(target, broker, ordered=True)
    until(lambda: broker.ends.get(1) == 300)
    assert not [number for number in target.handled if number < 1000], "the first partition waits for its first event"
    assert [number for number in target.handled if number >= 1000] == list(range(1000, 1300))
    assert one.counts["in_flight"] <= IN_FLIGHT_OF_A_PARTITION + FETCH
    gate.set()
    until(ended(broker, 300))
    assert [number for number in target.handled if number < 1000] == list(range(300))


def test_an_ordered_event_that_meets_a_defect_is_tried_again_before_the_next(subscribe):
    def broken(offset, attempt):
        if (offset, attempt) == (1, 0):
            raise ZeroDivisionError
        return 200

    target, broker = Target(broken), FakeBroker(count=3)
    subscribe(target, broker, ordered=True)
    until(ended(broker, 3))
    assert target.handled == [0, 1, 1, 2]


def test_stopping_ends_an_ordered_subscription_that_waits_for_a_retry_and_commits_nothing_of_it(subscribe):
    target, broker = Target(lambda offset, attempt: 500), FakeBroker(count=3)
    subscribe(target, broker, ordered=True, retry=5, delay=60)
    until(lambda: target.handled == [0])
    broker.stopping.set()
    until(lambda: broker.closed)
    assert target.handled == [0]
    assert set(broker.committed) <= {0}


def test_as_many_events_are_in_flight_as_there_are_workers(subscribe):
    target, broker = Target(lambda offset, attempt: time.sleep(0.05) or 200), FakeBroker(count=12)
    subscribe(target, broker, workers=3)
    until(ended(broker, 12))
    assert target.most == 3


def test_events_that_nobody_wants_are_committed_without_being_handled(subscribe):
    target, broker = Target(), FakeBroker(count=10)
    one = subscription(target, broker)
    one.route = Route("some", "g", ("t",), ({"exact": {"id": "3"}},), "Service", "f")
    thread = threading.Thread(target=one.run)
    thread.start()
    until(ended(broker, 10))
    broker.stopping.set()
    thread.join()
    assert target.handled == [3]


def test_a_defect_ends_no_worker_and_commits_nothing(subscribe):
    def broken(offset, attempt):
        if offset == 0:
            raise ZeroDivisionError
        return 200

    broker = FakeBroker(count=3)
    one = subscribe(Target(broken), broker, workers=1)
    until(lambda: broker.committed and one.counts["in_flight"] == 1)
    time.sleep(0.3)
    assert set(broker.committed) <= {0}


def test_a_consumer_that_cannot_connect_tries_again(subscribe):
    broker = FakeBroker(count=2, failures=1)
    subscribe(Target(), broker)
    until(ended(broker, 2))


def test_stopping_waits_for_what_is_in_flight_commits_it_and_closes(subscribe):
    target, broker = Target(lambda offset, attempt: time.sleep(0.3) or 200), FakeBroker(count=1)
    subscribe(target, broker)
    until(lambda: target.at_work == 1)
    broker.stopping.set()
    until(lambda: broker.closed)
    assert broker.committed[-1] == 1


@pytest.mark.parametrize(
    "junk",
    [
        record(),
        record(value=None),
        record(value=b"\xff\x00"),
        record([("content-type", b"application/cloudevents+json")], b"{"),
        record([("content-type", b"application/cloudevents+json")], b"[]"),
        record([("content-type", b"application/cloudevents+json")], b"[" * 100_000),
        record([("content-type", b"application/cloudevents+json")], json.dumps({**REQUIRED, "nested": {}}).encode()),
        record([("content-type", b"application/cloudevents+json")], json.dumps({**REQUIRED, "subject": "\ud800"}).encode()),
        record([("ce_specversion", b"1.0"), ("ce_id", b"\xff")], b"x"),
        record([("ce_specversion", None)], b"x"),
    ],
)
def test_a_record_that_is_no_event_is_wrapped_as_knative_does(junk):
    wrapped = from_record(junk)
    assert (wrapped["type"], wrapped["id"]) == ("dev.knative.kafka.event", "partition:3/offset:7")
    assert wrapped.data == (junk.value or b"")
    headers, _, value = events.to_kafka(wrapped)
    again = from_record(record(headers, value))
    assert again["id"] == wrapped["id"], "what is wrapped can be read again"
    assert to_http(again)[0]["ce-id"] == wrapped["id"]


def test_a_record_that_many_groups_read_is_made_an_event_once_and_never_taken_for_another():
    def of(offset, timestamp=0, text=b"{}"):
        made = record([(f"ce_{name}", value.encode()) for name, value in REQUIRED.items()], text, offset=offset)
        made.timestamp = timestamp
        return made

    records = Records()
    first = records.event(of(1))
    assert records.event(of(1)) is first
    assert records.event(of(2)) is not first
    assert records.event(of(1, timestamp=1)) is not first, "the topic was made anew"
    large = of(3, text=b'"' + b"x" * 9000 + b'"')
    assert records.event(large) is not records.event(large), "what is large is not kept"
    for offset in range(10, 1100):
        records.event(of(offset))
    assert records.event(of(1)) is not first, "what was read long ago is not kept"


@pytest.mark.parametrize("structured", [False, True])
def test_a_structured_record_becomes_the_same_event_as_a_binary_one(structured):
    one = events.build("t", "/s", {"a": [1, "é"]}, id="1", subject="x", partitionkey="k")
    headers, key, value = events.to_kafka(one, structured=structured)
    again = from_record(record(headers, value, key))
    assert (again.data, again["partitionkey"], again["subject"]) == (one.data, "k", "x")
    assert again["datacontenttype"] == "application/json"


@pytest.mark.parametrize("id", ["plain", "odd-é\n1", "100%", 'a"b', " x "])
def test_attributes_pass_http_unchanged_whatever_they_are(id):
    one = events.build("t", "/città", {"a": 1}, id=id)
    assert events.from_request(*to_http(one))["id"] == id
    assert events.from_request(*to_http(one)).data == {"a": 1}
