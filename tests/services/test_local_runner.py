"""The single-machine runner against a real Kafka, with a function that does what its events say instead of a model."""

import base64
import gc
import json
import os
import signal
import threading
import time

import pytest
import urllib3
from stub_platform import Home, answered, marked, needs_kafka, requests, runner, until

from mlaas import events
from mlaas.errors import MlaasError
from mlaas.kafka_lag import reason, waiting
from mlaas.local.kafka_server import KafkaServer, free_port
from mlaas.local.platform import Platform
from mlaas.settings import load
from mlaas.testing.kafka import publish, read

pytestmark = pytest.mark.services


@pytest.fixture(scope="module", autouse=True)
def _kafka():
    needs_kafka()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("runner") / "r")


@pytest.fixture(scope="module")
def platform(home):
    os.environ["STUB_CALLS"] = str(home.calls_file)
    with Platform(home.settings(), home.folder / "base", port=0, kafka_port=free_port()) as platform:
        yield platform
    gc.collect()
    del os.environ["STUB_CALLS"]


@pytest.fixture
def send(platform):
    return lambda *messages: publish(platform.bootstrap, "mlaas.requests", messages)


@pytest.fixture
def replies(platform):
    return lambda enough: read(platform.bootstrap, "mlaas.events", enough)


@pytest.fixture
def dead_letter(platform):
    def find(accept):
        return next(
            event for event in read(platform.bootstrap, "mlaas.dead-letters", lambda found: any(map(accept, found))) if accept(event)
        )

    return find


@pytest.fixture
def http():
    pool = urllib3.PoolManager()
    yield lambda method, url, **options: pool.request(method, url, retries=False, timeout=30, **options)
    pool.clear()


def test_a_request_is_answered_by_an_event_whose_id_is_derived_from_it(send, replies):
    send(*requests("first", 20))
    found = replies(lambda found: len(answered(found, "first")) == 20)
    ids = {event["causationid"]: event["id"] for event in found if event["causationid"].startswith("first-")}
    assert ids == {f"first-{n}": events.derived_id("/mlaas/client", f"first-{n}", "classify", "succeeded") for n in range(20)}


def test_an_offset_is_committed_only_after_the_reply(platform, send, replies):
    from kafka import KafkaAdminClient

    def committed():
        admin = KafkaAdminClient(bootstrap_servers=platform.bootstrap)
        offsets = admin.list_group_offsets(["knative-trigger-stub"])["knative-trigger-stub"]
        admin.close()
        return sum(offset.offset for offset in offsets.values())

    until(lambda: platform.state()["triggers"]["stub"]["in_flight"] == 0)
    time.sleep(0.6)
    before = committed()
    send(*requests("slow", 1, {"sleep": 2}))
    until(lambda: platform.state()["triggers"]["stub"]["in_flight"] == 1)
    time.sleep(0.8)
    during = committed()
    replies(lambda found: answered(found, "slow"))
    until(lambda: committed() > before)
    assert during == before


def test_a_500_is_retried_and_then_dead_lettered_with_the_reason(home, send, dead_letter):
    send(*requests("broken", 1, {"status": 500}))
    letter = dead_letter(lambda event: event["id"] == "broken-0")
    assert len(home.calls("broken-0")) == 3, "one try and two retries"
    assert letter["knativeerrorcode"] == "500"
    assert json.loads(base64.b64decode(letter["knativeerrordata"])) == {"detail": "told to say 500"}
    assert letter["knativeerrordest"].endswith("/fill-mask")
    assert letter.data["status"] == 500, "the event itself is in the letter"


def test_a_retry_that_succeeds_leaves_no_dead_letter_and_holds_up_no_other_event(home, send, replies):
    # 10 events wait a second for their retry, more than the function takes at once; what comes behind them overtakes.
    send(*requests("flaky", 10, {"status": 503, "times": 1, "headers": {"Retry-After": "2"}}), *requests("behind", 10))
    found = replies(lambda found: len(answered(found, "flaky")) == 10 and len(answered(found, "behind")) == 10)
    order = [event["causationid"].split("-")[0] for event in found if event["causationid"].split("-")[0] in ("flaky", "behind")]
    assert order == ["behind"] * 10 + ["flaky"] * 10
    assert all(len(home.calls(f"flaky-{n}")) == 2 for n in range(10))


def test_a_400_is_dead_lettered_at_once(home, send, dead_letter):
    send(*requests("refused", 1, {"status": 400}))
    assert dead_letter(lambda event: event["id"] == "refused-0")["knativeerrorcode"] == "400"
    assert len(home.calls("refused-0")) == 1


@pytest.mark.parametrize("junk", [b"not an event", b"\xff\xfe\x00", b"[" * 100_000, b""], ids=["text", "bytes", "nesting", "empty"])
def test_a_record_that_is_no_event_ends_in_the_dead_letters_and_stops_nothing(send, dead_letter, replies, junk):
    send(junk, *requests(f"after{len(junk)}", 4))
    letter = dead_letter(lambda event: event["type"] == "dev.knative.kafka.event" and _bytes(event.data) == junk)
    assert letter["id"].startswith("partition:")
    assert letter["knativeerrorcode"] == "400"
    assert len(answered(replies(lambda found: len(answered(found, f"after{len(junk)}")) == 4), f"after{len(junk)}")) == 4


def test_kafka_says_what_waits_and_which_dead_letter_is_the_newest(platform, send, replies):
    configured = load({"MLAAS_KAFKA": platform.bootstrap})

    def lag():
        return {one.group: one.lag for one in waiting(configured).lags}.get("knative-trigger-stub", 0)

    until(lambda: lag() == 0)
    send(*requests("lagging", 4, {"sleep": 2}))
    until(lambda: lag() == 4)
    replies(lambda found: len(answered(found, "lagging")) == 4)
    until(lambda: lag() == 0)
    before = waiting(configured).dead_letters.count
    send(*requests("newest", 1, {"status": 400}))
    until(lambda: waiting(configured).dead_letters.count == before + 1)
    letter = waiting(configured, newest=True).dead_letters.newest
    assert (letter["id"], reason(letter)) == ("newest-0", "told to say 400")


def test_the_gateway_has_figures_to_scrape(platform, send, replies, http):
    send(*requests("scraped", 1))
    replies(lambda found: answered(found, "scraped"))
    answer = http("GET", f"{platform.url}/metrics")
    figures = dict(line.rsplit(" ", 1) for line in answer.data.decode().splitlines() if not line.startswith("#"))
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert float(figures['mlaas_trigger_delivered_total{trigger="stub"}']) > 0
    assert float(figures["mlaas_dead_letters"]) >= 0
    assert figures["mlaas_kafka_up"] == "1.0"
    assert 'mlaas_kafka_lag_records{group="mlaas-requests",topic="mlaas.requests"}' in figures


def test_attributes_that_no_header_can_carry_arrive_unchanged(send, replies):
    event = events.new("fill_mask", {"text": "Università"}, source="/città/a%20b", id="odd-é\n1")
    send(event)
    reply = next(e for e in replies(lambda found: any(e["causationid"] == event["id"] for e in found)) if e["causationid"] == event["id"])
    assert reply["id"] == events.derived_id("/città/a%20b", "odd-é\n1", "classify", "succeeded")
    assert reply.data == {"text": "Università"}


def test_killing_a_function_in_the_middle_of_200_events_loses_none(platform, send, replies):
    send(*requests("killed", 200, {"sleep": 0.02}))
    replies(lambda found: len(answered(found, "killed")) >= 30)
    before = platform.functions["fill-mask"].pid
    os.kill(before, signal.SIGKILL)
    assert len(answered(replies(lambda found: len(answered(found, "killed")) == 200), "killed")) == 200
    assert platform.functions["fill-mask"].pid != before


def test_an_idle_function_is_stopped_and_started_once_for_all_who_wait(home, platform, http):
    function = platform.functions["fill-mask"]
    until(lambda: function.state()["state"] == "idle")
    restarts, answers = function.restarts, []
    threads = [
        threading.Thread(target=lambda: answers.append(http("GET", f"{platform.url}/fill_mask/health/readiness").status)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    assert function.restarts == restarts
    assert (home.folder / "home" / "logs" / "fill-mask.log").exists()


def test_the_gateway_forwards_method_path_query_and_body(platform, http):
    answer = http("POST", f"{platform.url}/fill-mask/deep/path?q=1&r=%C3%A9", body=b"12345", headers={"Content-Type": "text/plain"})
    assert answer.json() == {"length": 5, "query": "/deep/path?q=1&r=%C3%A9"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("POST", "/fill-mask", {"body": b"x" * 300_000}, 413),
        ("POST", "/broker", {"body": b"x" * 300_000}, 413),
        ("POST", "/broker", {"body": b"{}", "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", "/broker", {"body": b"[" * 50_000, "headers": {"Content-Type": "application/cloudevents+json"}}, 400),
        ("POST", "/broker", {"body": b"{}", "headers": {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t"}}, 400),
    ],
    ids=["unknown", "large", "large-event", "no-event", "nested-event", "no-source"],
)
def test_the_gateway_refuses_with_a_problem_that_names_the_remedy(platform, http, method, path, options, status):
    answer = http(method, platform.url + path, **options)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["remedy"]


def test_an_event_posted_to_the_broker_is_answered_like_one_from_kafka(platform, http, replies):
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "posted-1",
        "ce-source": "/test",
        "ce-type": "it.infn.mlaas.fill_mask.requested.v1",
        "Content-Type": "application/json",
    }
    assert http("POST", f"{platform.url}/broker", body=b"{}", headers=headers).status == 202
    assert answered(replies(lambda found: answered(found, "posted")), "posted") == {"posted-1"}


def test_the_index_lists_functions_with_urls_and_states(platform, http):
    listed = http("GET", platform.url).json()
    assert listed["functions"]["fill-mask"]["url"] == f"{platform.url}/fill-mask"
    assert listed["functions"]["fill-mask"]["state"] in ("idle", "starting", "running")
    assert {"lag", "in_flight", "retried", "dead_lettered"} <= set(listed["triggers"]["stub"])
    assert http("GET", f"{platform.url}/healthz").json() == {"status": "ok"}


def test_a_redelivered_event_makes_one_job(home, send, platform):
    accepted = events.build("it.infn.mlaas.train.accepted.v1", "/mlaas/train", {}, id="once")
    send(accepted, accepted)
    until(lambda: list((home.folder / "home" / "jobs").glob("train-*/succeeded")))
    send(accepted)
    until(lambda: platform.state()["triggers"]["train-accepted"]["delivered"] >= 3)
    until(lambda: platform.state()["jobs"]["train"]["unfinished"] == 0)
    assert len(home.calls("once")) == 1


def test_a_job_that_fails_is_tried_again_up_to_its_limit(home, send):
    send(events.build("it.infn.mlaas.train.accepted.v1", "/mlaas/train", {"status": 3}, id="hopeless"))
    until(lambda: list((home.folder / "home" / "jobs").glob("train-*/failed")))
    assert len(home.calls("hopeless")) == 2


def test_a_second_platform_on_the_same_home_is_refused(home, platform):
    with pytest.raises(MlaasError, match="already runs"), Platform(home.settings(), home.folder / "base", port=0, kafka_port=free_port()):
        pass


def test_events_wait_for_a_broker_that_dies_and_none_is_lost(home, send, replies):
    pid_file = home.folder / "home" / "kafka" / "broker.pid"

    def pid_now():
        try:
            return pid_file.read_text()
        except FileNotFoundError:  # removed, until the next broker writes it
            return ""

    send(*requests("outage", 60, {"sleep": 0.05}))
    replies(lambda found: answered(found, "outage"))
    pid = pid_now()
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: pid_now() not in ("", pid))
    assert len(answered(replies(lambda found: len(answered(found, "outage")) == 60), "outage")) == 60


def test_killing_the_runner_in_the_middle_loses_no_event_and_no_job_and_leaves_no_process(tmp_path):
    home, port = Home(tmp_path / "k"), free_port()
    bootstrap = f"127.0.0.1:{port}"
    with runner(home, port) as process:
        publish(bootstrap, "mlaas.requests", [events.build("it.infn.mlaas.train.accepted.v1", "/mlaas/train", {"sleep": 4}, id="long")])
        publish(bootstrap, "mlaas.requests", requests("runner", 200, {"sleep": 0.02}))
        read(bootstrap, "mlaas.events", lambda found: len(answered(found, "runner")) >= 30)
        until(lambda: home.calls("long"))
        process.kill()
        process.wait()
        until(lambda: marked(home) == [], 12)
    with runner(home, port) as process:
        found = read(bootstrap, "mlaas.events", lambda found: len(answered(found, "runner")) == 200)
        assert len(answered(found, "runner")) == 200
        until(lambda: list((home.folder / "home" / "jobs").glob("train-*/succeeded")))
        assert len(home.calls("long")) == 2, "the job was killed with the runner and run again"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does: to the whole foreground group
        started = time.monotonic()
        assert process.wait(12) == 0
        assert time.monotonic() - started < 10
        assert marked(home) == []


def test_a_broker_that_was_left_behind_on_the_folder_is_ended_first(tmp_path):
    first = KafkaServer(tmp_path, free_port(), free_port())
    first.start()
    left_behind = first.pid
    with KafkaServer(tmp_path, first.port, free_port()) as second:
        assert second.alive
        assert not first.alive
        assert second.pid != left_behind
    first.stop()


def _bytes(data):
    return (
        data
        if isinstance(data, bytes)
        else b""
        if data is None
        else json.dumps(data).encode()
        if not isinstance(data, str)
        else data.encode()
    )
