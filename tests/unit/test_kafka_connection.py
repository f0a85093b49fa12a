"""Which Kafka settings go together, and what a client is told when they do not or when nothing answers."""

import socket
import ssl
import threading

import pytest
from kafka.errors import KafkaTimeoutError

from mlaas import kafka_connection
from mlaas.errors import InvalidRequest, MlaasError, Unavailable
from mlaas.kafka_diagnosis import Login, diagnose
from mlaas.settings import load

LOGIN = {"MLAAS_KAFKA_SASL_MECHANISM": "PLAIN", "MLAAS_KAFKA_USERNAME": "u", "MLAAS_KAFKA_PASSWORD": "hidden-word"}
SASL = {"MLAAS_KAFKA_SECURITY": "SASL_PLAINTEXT", **LOGIN}


def without(name):
    return {key: value for key, value in SASL.items() if key != name}


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"MLAAS_KAFKA": "somewhere"}, "MLAAS_KAFKA"),
        ({"MLAAS_KAFKA": "a:1,b"}, "MLAAS_KAFKA"),
        ({"MLAAS_KAFKA": "a:0"}, "MLAAS_KAFKA"),
        ({"MLAAS_KAFKA": "a:99999"}, "MLAAS_KAFKA"),
        (without("MLAAS_KAFKA_SASL_MECHANISM"), "MLAAS_KAFKA_SASL_MECHANISM"),
        (without("MLAAS_KAFKA_USERNAME"), "MLAAS_KAFKA_USERNAME"),
        (without("MLAAS_KAFKA_PASSWORD"), "MLAAS_KAFKA_PASSWORD"),
        (without("MLAAS_KAFKA_SECURITY"), "MLAAS_KAFKA_SASL_MECHANISM"),
        ({"MLAAS_KAFKA_SECURITY": "SSL", "MLAAS_KAFKA_PASSWORD": "hidden-word"}, "MLAAS_KAFKA_PASSWORD"),
        ({"MLAAS_KAFKA_CA": "/nowhere/ca.pem"}, "MLAAS_KAFKA_CA"),
        ({**SASL, "MLAAS_KAFKA_KEY": "/nowhere/key.pem"}, "MLAAS_KAFKA_KEY"),
        ({"MLAAS_KAFKA_SECURITY": "SSL", "MLAAS_KAFKA_KEY": "/nowhere/key.pem"}, "MLAAS_KAFKA_CERTIFICATE"),
        ({"MLAAS_KAFKA_SECURITY": "SSL", "MLAAS_KAFKA_CERTIFICATE": "/nowhere/key.pem"}, "MLAAS_KAFKA_KEY"),
        ({"MLAAS_KAFKA_SECURITY": "SSL", "MLAAS_KAFKA_CA": "/nowhere/ca.pem"}, "MLAAS_KAFKA_CA"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_name_and_the_remedy(environ, named):
    with pytest.raises(InvalidRequest) as caught:
        kafka_connection.options(load(environ))
    assert caught.value.field == named
    assert caught.value.remedy
    assert not {"nowhere", "hidden-word"} & set(f"{caught.value} {caught.value.remedy}".replace("/", " ").split())


@pytest.mark.parametrize(
    ("name", "value"), [("MLAAS_KAFKA_SECURITY", "TLS"), ("MLAAS_KAFKA_SASL_MECHANISM", "GSSAPI"), ("MLAAS_KAFKA_PARTITIONS", "0")]
)
def test_a_value_that_is_not_offered_stops_the_start_and_names_the_setting(name, value):
    with pytest.raises(MlaasError) as caught:
        load({name: value})
    assert caught.value.field == name


def test_a_plain_connection_has_neither_tls_nor_a_login():
    options = kafka_connection.options(load({"MLAAS_KAFKA": "one:1, two:2"}))
    assert options["bootstrap_servers"] == ["one:1", "two:2"]
    assert options["security_protocol"] == "PLAINTEXT"
    assert not [name for name in options if name.startswith(("ssl", "sasl"))]


def test_a_login_becomes_kafka_pythons_arguments():
    options = kafka_connection.options(load(SASL))
    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_PLAINTEXT", "PLAIN")
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("u", "hidden-word")


def test_a_user_name_is_escaped_for_scram_only():
    odd = {**SASL, "MLAAS_KAFKA_USERNAME": "a,b=c"}
    assert kafka_connection.options(load(odd))["sasl_plain_username"] == "a,b=c"
    scram = kafka_connection.options(load({**odd, "MLAAS_KAFKA_SASL_MECHANISM": "scram-sha-256"}))
    assert scram["sasl_plain_username"] == "a=2Cb=3Dc"


def test_tls_verifies_the_certificate_and_the_host():
    context = kafka_connection.options(load({"MLAAS_KAFKA_SECURITY": "ssl"}))["ssl_context"]
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_file_that_is_no_certificate_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing of that kind")
    with pytest.raises(InvalidRequest, match="the file cannot be used") as caught:
        kafka_connection.options(load({"MLAAS_KAFKA_SECURITY": "SSL", "MLAAS_KAFKA_CA": str(tmp_path / "ca.pem")}))
    assert caught.value.field == "MLAAS_KAFKA_CA"


def test_no_secret_is_in_the_repr_of_the_settings():
    assert "hidden-word" not in repr(load(SASL))
    assert "hidden-word" not in repr(Login("PLAIN", "u", "hidden-word"))


def test_a_kafka_that_does_not_answer_is_unavailable():
    with (
        pytest.raises(Unavailable, match=r"no Kafka answers at 127\.0\.0\.1:1") as caught,
        kafka_connection.connecting(load({"MLAAS_KAFKA": "127.0.0.1:1"})),
    ):
        raise KafkaTimeoutError("it took too long for user u with hidden-word")
    assert caught.value.field == "MLAAS_KAFKA"
    assert "hidden-word" not in f"{caught.value} {caught.value.remedy}"


@pytest.mark.parametrize("sent", [b"", b"\x00\x00\x00\x01x", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64])
def test_a_server_that_speaks_something_else_is_not_blamed_for_anything(sent):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(sent)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert diagnose("127.0.0.1", server.getsockname()[1], None, None) is None
        assert diagnose("127.0.0.1", server.getsockname()[1], None, Login("PLAIN", "u", "p")) is None
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert not thread.is_alive()
