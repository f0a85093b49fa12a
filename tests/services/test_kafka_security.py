"""TLS, logins and clients' certificates against a real Kafka that asks for them, and what is said to who is not let in."""

import dataclasses
import gc
import json
import os
import subprocess
import sys

import pytest

from mlaas import events
from mlaas.client import EVENTS, REQUESTS, EventClient
from mlaas.errors import InvalidRequest, MlaasError
from mlaas.local.broker import Broker
from mlaas.local.kafka_server import install
from mlaas.settings import load
from mlaas.testing.secured_kafka import PASSWORD, secured_kafka

pytestmark = [
    pytest.mark.services,
    # kafka-python leaves sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <s:pytest.PytestUnraisableExceptionWarning"),
]

PLAINTEXT = dict.fromkeys((f"MLAAS_KAFKA_{name}" for name in ("SECURITY", "SASL_MECHANISM", "USERNAME", "PASSWORD", "CA")), "")


@pytest.fixture(scope="module")
def kafka():
    try:
        install()
    except MlaasError as error:
        pytest.skip(f"Apache Kafka's jars cannot be had: {error.detail}")
    with secured_kafka() as kafka:
        broker = Broker(load({"MLAAS_KAFKA": kafka.server.bootstrap, "MLAAS_KAFKA_PARTITIONS": "3"}), [REQUESTS, EVENTS])
        broker.close()
        yield kafka
    gc.collect()


@pytest.mark.parametrize(
    ("listener", "changed"),
    [
        ("sasl", {}),
        ("sasl", {"MLAAS_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}),
        ("sasl", {"MLAAS_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}),
        ("sasl_tls", {}),
        ("sasl_tls", {"MLAAS_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}),
        ("mutual_tls", {}),
    ],
)
def test_an_event_passes_in_and_out(kafka, listener, changed):
    settings = load(kafka.environ(listener, **changed))
    broker = Broker(settings, [REQUESTS, EVENTS])
    event = events.new("classify", {"listener": listener})
    with EventClient(settings) as client:
        assert client.send([event]) == 1
        broker.append(EVENTS, events.reply(event, "classify", "succeeded", {}))
        assert client.replies([event["id"]], seconds=20)[event["id"]]["causationid"] == event["id"]
    broker.close()


@pytest.mark.parametrize(
    ("listener", "changed", "field", "detail"),
    [
        ("sasl", {"MLAAS_KAFKA_PASSWORD": "hidden-word"}, "MLAAS_KAFKA_PASSWORD", "refuses the login"),
        ("sasl", {"MLAAS_KAFKA_USERNAME": "nobody"}, "MLAAS_KAFKA_PASSWORD", "refuses the login"),
        ("sasl_tls", {"MLAAS_KAFKA_PASSWORD": "x", "MLAAS_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}, "MLAAS_KAFKA_PASSWORD", "refuses the"),
        ("sasl_tls", {"MLAAS_KAFKA_CA": ""}, "MLAAS_KAFKA_CA", "is not trusted"),
        ("sasl_tls", {"MLAAS_KAFKA_CA": "other_ca"}, "MLAAS_KAFKA_CA", "is not trusted"),
        ("elsewhere", {}, "MLAAS_KAFKA", "is for another host"),
        (
            "mutual_tls",
            {"MLAAS_KAFKA_CERTIFICATE": "", "MLAAS_KAFKA_KEY": ""},
            "MLAAS_KAFKA_CERTIFICATE",
            "asks for a client's certificate",
        ),
        ("mutual_tls", {"MLAAS_KAFKA_CERTIFICATE": "ca"}, "MLAAS_KAFKA_CERTIFICATE", "the file cannot be used"),
        ("sasl", {"MLAAS_KAFKA": "sasl_tls"}, "MLAAS_KAFKA_SECURITY", "speaks TLS at this port"),
        ("sasl_tls", {"MLAAS_KAFKA": "sasl"}, "MLAAS_KAFKA_SECURITY", "speaks no TLS at this port"),
        ("sasl_tls", {"MLAAS_KAFKA": "mutual_tls"}, "MLAAS_KAFKA_CERTIFICATE", "asks for a client's certificate"),
        ("sasl", PLAINTEXT, "MLAAS_KAFKA_SECURITY", "asks for a login at this port"),
        ("sasl_tls", PLAINTEXT, "MLAAS_KAFKA_SECURITY", "speaks TLS at this port"),
    ],
)
def test_who_is_not_let_in_is_told_which_setting_is_wrong(kafka, listener, changed, field, detail):
    files = {"other_ca": str(kafka.other_ca), "ca": str(kafka.ca)}
    changed = {name: files.get(value, value) for name, value in changed.items()}
    if (place := changed.get("MLAAS_KAFKA")) in kafka.ports:
        changed["MLAAS_KAFKA"] = f"127.0.0.1:{kafka.ports[place]}"
    settings = load(kafka.environ(listener, **changed))
    for connect in (EventClient, lambda settings: Broker(settings, [])):
        with pytest.raises(InvalidRequest, match=detail) as caught:
            connect(settings)
        said = f"{caught.value} {caught.value.remedy}"
        assert caught.value.field == field
        assert not [secret for secret in (PASSWORD, "hidden-word", str(kafka.ca.parent)) if secret in said]


def test_a_login_where_none_is_asked_for_is_told_so(kafka):
    with pytest.raises(InvalidRequest, match="takes no login at this port") as caught:
        EventClient(dataclasses.replace(load(kafka.environ("sasl")), kafka=kafka.server.bootstrap))
    assert caught.value.field == "MLAAS_KAFKA_SECURITY"


def test_the_command_line_connects_with_the_environments_settings_and_never_shows_the_password(kafka, tmp_path):
    def mlaas(**changed):
        environ = {**os.environ, **kafka.environ("sasl_tls", MLAAS_HOME=str(tmp_path), **changed)}
        command = [sys.executable, "-m", "mlaas.cli", "send", "classify", "{}", "--json"]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)

    sent = mlaas()
    assert json.loads(sent.stdout)["type"] == "it.infn.mlaas.classify.requested.v1"
    refused = mlaas(MLAAS_KAFKA_USERNAME="nobody")
    assert refused.returncode == 3
    assert refused.stderr.startswith("error (MLAAS_KAFKA_PASSWORD): Kafka refuses the login")
    assert PASSWORD not in sent.stdout + sent.stderr + refused.stdout + refused.stderr


def test_mlaas_up_starts_no_kafka_of_its_own_when_settings_ask_for_tls(kafka, tmp_path):
    environ = {**os.environ, **kafka.environ("sasl_tls", MLAAS_HOME=str(tmp_path))}
    done = subprocess.run([sys.executable, "-m", "mlaas.cli", "up"], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error (MLAAS_KAFKA_SECURITY)")
    assert "--kafka" in done.stderr
