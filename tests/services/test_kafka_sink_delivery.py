"""`python -m mlaas.local.kafka_sink` as a process on a real Kafka: what it acknowledged is in the topic that it made."""

import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from stub_platform import needs_kafka, until

from mlaas.local.kafka_server import free_port
from mlaas.testing.kafka import read, running_kafka

pytestmark = pytest.mark.services


def ready(url):
    try:
        return urllib.request.urlopen(f"{url}/health/readiness", timeout=2).status == 200
    except urllib.error.URLError:
        return False


def test_what_is_acknowledged_is_in_the_topic_and_the_process_ends_when_it_is_told_to(tmp_path):
    needs_kafka()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running_kafka() as kafka:
        bootstrap = kafka.bootstrap
        where = {"PORT": str(port), "MLAAS_HOST": "127.0.0.1", "MLAAS_KAFKA": bootstrap, "MLAAS_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "mlaas.local.kafka_sink", "letters=mlaas.dead-letters"]
        sink = subprocess.Popen(command, env={**os.environ, **where})
        try:
            until(lambda: ready(url), 30)
            headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-partitionkey": "k"}
            request = urllib.request.Request(f"{url}/letters", b'"caf\xc3\xa9"', {**headers, "content-type": "application/json"})
            assert urllib.request.urlopen(request, timeout=10).status == 202
            (event,) = read(bootstrap, "mlaas.dead-letters", lambda found: bool(found))
            assert (event["id"], event["partitionkey"], event.data) == ("1", "k", "café")
            sink.terminate()
            assert sink.wait(10) == 0
        finally:
            sink.kill()
            sink.wait()
