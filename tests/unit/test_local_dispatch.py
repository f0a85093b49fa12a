"""What a Trigger does with an answer, and which offsets are committed when."""

import base64
import threading
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from mlaas.errors import TooLarge, Unavailable
from mlaas.local.broker import TopicPartition
from mlaas.local.dispatch import Answer, Dispatcher, Topics, is_retryable
from mlaas.local.manifests import Delivery, Trigger
from mlaas.local.records import Event
from mlaas.local.subscription import Subscription

EVENT = Event({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "datacontenttype": "application/json"}, b"{}")
REPLY = {"ce-specversion": "1.0", "ce-id": "2", "ce-source": "/f", "ce-type": "r", "Content-Type": "application/json"}


class FakeJournal:
    """Keeps what is appended; refuses records of `limit` bytes and more."""

    def __init__(self, limit=10**9):
        self.appended, self.limit, self.stopping = [], limit, threading.Event()

    def append(self, topic, record, patience=0.0):
        headers, _, value = record
        if len(value) >= self.limit:
            raise TooLarge("too large")
        self.appended.append((topic, {name: text.decode() for name, text in headers}, value))


def dispatcher(answer, journal, **delivery):
    def subscriber(event):
        if isinstance(answer, Exception):
            raise answer
        return answer

    trigger = Trigger("some", lambda event: True, "Service", "f", Delivery(**delivery))
    return Dispatcher(trigger, subscriber, journal, Topics("broker", "dead"), "http://f")


@pytest.mark.parametrize("status", [0, 404, 408, 409, 429, 500, 502, 503, 504])
def test_statuses_that_knative_retries_are_retried_and_then_dead_lettered(status):
    journal = FakeJournal()
    one = dispatcher(Answer(status, {}, b"why"), journal, retry=2, delay=0.5)
    assert [one.handle(EVENT, attempt) for attempt in range(3)] == [0.5, 1.0, None]
    ((topic, headers, value),) = journal.appended
    assert (topic, value, headers["ce_knativeerrorcode"]) == ("dead", b"{}", str(status or 503))
    assert base64.b64decode(headers["ce_knativeerrordata"]) == b"why"
    assert headers["ce_knativeerrordest"] == "http://f"
    assert (one.retried, one.dead_lettered) == (2, 1)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 405, 410, 413, 422])
def test_other_statuses_are_dead_lettered_at_once(status):
    journal = FakeJournal()
    assert not is_retryable(status)
    assert dispatcher(Answer(status), journal, retry=5).handle(EVENT, 0) is None
    assert journal.appended[0][0] == "dead"


def test_linear_backoff_grows_by_the_delay():
    assert [Delivery(exponential=False, delay=2).backoff(attempt) for attempt in range(3)] == [2, 4, 6]


@pytest.mark.parametrize(
    ("header", "status", "waits"),
    [("7", 503, 7), ("7", 429, 7), ("7", 500, 1), ("9999", 503, 30), ("0", 503, 1), ("-5", 503, 1), ("nonsense", 503, 1)],
)
def test_retry_after_is_honoured_up_to_a_bound(header, status, waits):
    assert dispatcher(Answer(status, {"retry-after": header}), FakeJournal(), retry=1, delay=1).handle(EVENT, 0) == waits


def test_retry_after_may_be_a_date():
    date = formatdate(time.time() + 20, usegmt=True)
    assert 15 < dispatcher(Answer(503, {"Retry-After": date}), FakeJournal(), retry=1).handle(EVENT, 0) <= 20


def test_a_reply_is_appended_to_the_broker_as_it_is():
    journal = FakeJournal()
    assert dispatcher(Answer(200, REPLY, b'{"a" : 1}'), journal).handle(EVENT, 0) is None
    ((topic, headers, value),) = journal.appended
    assert (topic, headers["ce_id"], value) == ("broker", "2", b'{"a" : 1}')


@pytest.mark.parametrize("answer", [Answer(204), Answer(202, {"Content-Type": "application/json"}, b"{}")])
def test_an_answer_without_an_event_is_the_end(answer):
    journal = FakeJournal()
    assert dispatcher(answer, journal).handle(EVENT, 0) is None
    assert journal.appended == []


@pytest.mark.parametrize(
    ("answer", "limit"), [(Answer(200, {"ce-id": "2"}, b""), 10**9), (Answer(200, REPLY, b"x" * 100), 100)], ids=["malformed", "too large"]
)
def test_a_reply_that_cannot_be_kept_dead_letters_its_cause_with_the_reason(answer, limit):
    journal = FakeJournal(limit)
    assert dispatcher(answer, journal, retry=5).handle(EVENT, 0) is None
    ((topic, headers, _),) = journal.appended
    assert topic == "dead"
    assert b"refused" in base64.b64decode(headers["ce_knativeerrordata"])


def test_a_letter_that_is_too_large_keeps_its_attributes():
    journal = FakeJournal(limit=2)
    assert dispatcher(Answer(400), journal).handle(EVENT, 0) is None
    assert journal.appended[0][1]["ce_id"] == "1"
    assert journal.appended[0][2] == b""


def test_the_reason_is_truncated_to_1024_bytes():
    journal = FakeJournal()
    dispatcher(Answer(400, {}, b"x" * 5000), journal).handle(EVENT, 0)
    assert base64.b64decode(journal.appended[0][1]["ce_knativeerrordata"]) == b"x" * 1024


def test_a_function_that_does_not_start_and_a_defect_cost_tries_and_not_the_event():
    journal = FakeJournal()
    assert dispatcher(Unavailable("down", retry_after=3), journal, retry=1, delay=1).handle(EVENT, 0) == 3
    assert dispatcher(ZeroDivisionError(), journal, retry=1, delay=1).handle(EVENT, 0) == 1
    assert dispatcher(ZeroDivisionError(), journal, retry=1, delay=1).handle(EVENT, 1) is None
    assert [topic for topic, _, _ in journal.appended] == ["dead"]


def test_while_the_platform_stops_a_failure_is_no_reason_to_bury_the_event():
    journal = FakeJournal()
    journal.stopping.set()
    assert dispatcher(Answer(503), journal).handle(EVENT, 0) is not None
    assert journal.appended == []


PARTITION = TopicPartition("t", 0)


class FakeConsumer:
    """Serves offsets 0 to `count` - 1 of one partition once, and keeps what is committed."""

    def __init__(self, count, failures=0):
        self.count, self.failures, self.served, self.committed, self.closed = count, failures, 0, [], False

    def __call__(self, group):
        if self.failures:
            self.failures -= 1
            raise OSError("no broker")
        return self

    def subscribe(self, topics, listener):
        self.listener = listener

    def poll(self, timeout_ms, max_records):
        offsets = range(self.served, min(self.count, self.served + max_records))
        self.served += len(offsets)
        if not offsets:
            time.sleep(0.01)
            return {}
        return {PARTITION: [SimpleNamespace(offset=offset, key=b"k", value=b"", headers=[]) for offset in offsets]}

    def commit(self, offsets, timeout_ms):
        self.committed.append(offsets[PARTITION].offset)

    def assignment(self):
        return {PARTITION}

    def paused(self):
        return set()

    def pause(self, *partitions): ...
    def resume(self, *partitions): ...
    def highwater(self, partition):
        return self.count

    def close(self, autocommit, timeout_ms):
        self.closed = True


class FakeHandler:
    """Finishes an event when told to; counts attempts, and how many were at work at once."""

    def __init__(self, answers=lambda offset, attempt: None, wanted=lambda offset: True):
        self.answers, self.wanted, self.handled, self.lock, self.at_work, self.most = answers, wanted, [], threading.Lock(), 0, 0

    def prepare(self, record):
        return Event({"id": str(record.offset)}, b"") if self.wanted(record.offset) else None

    def handle(self, event, attempt):
        with self.lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        try:
            return self.answers(int(event.attributes["id"]), attempt)
        finally:
            with self.lock:
                self.at_work -= 1
                self.handled.append((int(event.attributes["id"]), attempt))


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def subscribe():
    started = []

    def start(handler, consumer, **options):
        subscription = Subscription(handler, consumer, "g", ("t",), **{"workers": 4, "ordered": False, **options})
        started.append(subscription)
        subscription.start()
        return subscription

    yield start
    for one in started:
        one.begin_stop()
        one.join(1.0)


def test_only_the_finished_prefix_of_a_partition_is_committed(subscribe):
    gate = threading.Event()
    consumer = FakeConsumer(6)
    subscription = subscribe(FakeHandler(lambda offset, attempt: None if offset != 2 else gate.wait(5) and None), consumer)
    until(lambda: subscription.unfinished == 1)
    time.sleep(0.4)
    assert max(consumer.committed) == 2, "offset 2 is not at its end, though 3 to 5 are"
    assert subscription.lag == 4
    gate.set()
    until(lambda: consumer.committed[-1] == 6)


def test_an_event_that_waits_for_its_retry_lets_the_others_pass_and_is_tried_again(subscribe):
    handler = FakeHandler(lambda offset, attempt: 0.3 if (offset, attempt) == (0, 0) else None)
    consumer = FakeConsumer(5)
    subscribe(handler, consumer, workers=1)
    until(lambda: consumer.committed and consumer.committed[-1] == 5)
    assert handler.handled[-1] == (0, 1)


def test_ordered_events_of_one_key_wait_for_each_others_retries(subscribe):
    handler = FakeHandler(lambda offset, attempt: 0.05 if attempt < 2 and offset == 1 else None)
    consumer = FakeConsumer(4)
    subscribe(handler, consumer, ordered=True)
    until(lambda: consumer.committed and consumer.committed[-1] == 4)
    assert handler.handled == [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0)]


def test_as_many_events_are_in_flight_as_there_are_workers(subscribe):
    handler = FakeHandler(lambda offset, attempt: time.sleep(0.05))
    consumer = FakeConsumer(12)
    subscribe(handler, consumer, workers=3)
    until(lambda: consumer.committed and consumer.committed[-1] == 12)
    assert handler.most == 3


def test_events_that_nobody_wants_are_committed_without_being_handled(subscribe):
    handler, consumer = FakeHandler(wanted=lambda offset: offset == 3), FakeConsumer(10)
    subscribe(handler, consumer)
    until(lambda: consumer.committed and consumer.committed[-1] == 10)
    assert handler.handled == [(3, 0)]


def test_a_defect_ends_no_worker_and_commits_nothing(subscribe):
    def broken(offset, attempt):
        if offset == 0:
            raise ZeroDivisionError

    consumer = FakeConsumer(3)
    subscription = subscribe(FakeHandler(broken), consumer, workers=1)
    until(lambda: subscription.unfinished == 1)
    time.sleep(0.3)
    assert set(consumer.committed) <= {0}


def test_a_consumer_that_cannot_connect_tries_again(subscribe):
    consumer = FakeConsumer(2, failures=1)
    subscribe(FakeHandler(), consumer)
    until(lambda: consumer.committed and consumer.committed[-1] == 2)


def test_after_a_rebalance_what_was_in_flight_is_not_committed(subscribe):
    gate = threading.Event()
    consumer = FakeConsumer(2)
    subscription = subscribe(FakeHandler(lambda offset, attempt: gate.wait(5) and None), consumer)
    until(lambda: subscription.unfinished == 2)
    consumer.listener.on_partitions_revoked([PARTITION])
    gate.set()
    time.sleep(0.4)
    assert set(consumer.committed) <= {0}


def test_stopping_waits_for_what_is_in_flight_commits_it_and_closes(subscribe):
    handler = FakeHandler(lambda offset, attempt: time.sleep(0.3))
    consumer = FakeConsumer(1)
    subscription = subscribe(handler, consumer)
    until(lambda: handler.at_work == 1)
    subscription.begin_stop()
    subscription.join(2.0)
    assert consumer.committed[-1] == 1
    assert consumer.closed
