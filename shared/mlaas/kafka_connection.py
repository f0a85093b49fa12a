"""How this platform connects to Kafka: from the settings to kafka-python's arguments, and from its failures to a reason.

Everybody who connects goes through `connecting`, so TLS and logins are configured, and their mistakes explained, in one place.
"""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InvalidRequest, Unavailable
from .kafka_diagnosis import Login, diagnose
from .kafka_records import tolerate_odd_headers
from .settings import Settings, current

__all__ = ["check", "connecting", "options", "servers", "settings_for"]

PATIENCE_MS = 10_000  # how long a client looks for a Kafka that is just starting
_ENCRYPTED, _LOGIN = ("SSL", "SASL_SSL"), ("SASL_PLAINTEXT", "SASL_SSL")


def settings_for(kafka: str | Settings) -> Settings:
    """The settings of a connection; a mere `HOST:PORT,...` is spoken to as this process' own settings say."""
    return dataclasses.replace(current(), kafka=kafka) if isinstance(kafka, str) else kafka


def servers(settings: Settings) -> list[tuple[str, int]]:
    """Host and port of each bootstrap server. Raises InvalidRequest."""
    found = []
    for one in settings.kafka.split(","):
        host, colon, port = one.strip().rpartition(":")
        if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536:
            raise _wrong("MLAAS_KAFKA", "Kafka's address cannot be used", "Give HOST:PORT, several of them with commas between.")
        found.append((host.strip("[]"), int(port)))
    return found


def options(settings: Settings) -> dict[str, Any]:
    """The keyword arguments that every client of kafka-python takes. Raises InvalidRequest naming the setting that is wrong."""
    check(settings)
    found: dict[str, Any] = {
        "bootstrap_servers": [one.strip() for one in settings.kafka.split(",")],
        "security_protocol": settings.kafka_security,
        "reconnect_backoff_max_ms": 1000,
        "bootstrap_timeout_ms": PATIENCE_MS,
    }
    if settings.kafka_security in _ENCRYPTED:
        found["ssl_context"] = _context(settings)
    if login := _login(settings):
        found |= {"sasl_mechanism": login.mechanism, "sasl_plain_username": login.user, "sasl_plain_password": login.password}
    return found


@contextmanager
def connecting(settings: Settings) -> Iterator[dict[str, Any]]:
    """`options` for the clients that are made inside. Raises InvalidRequest for a refused login or certificate, else Unavailable."""
    from kafka.errors import KafkaError

    given = options(settings)
    tolerate_odd_headers()
    _explain(settings, given)  # once, before a client would try a wrong password again and again
    try:
        yield given
    except KafkaError:
        _explain(settings, given)
        remedy = "Start the platform with `mlaas up`, or set MLAAS_KAFKA."
        raise Unavailable(f"no Kafka answers at {settings.kafka}", field="MLAAS_KAFKA", remedy=remedy) from None


def check(settings: Settings) -> None:
    """Refuse settings that contradict each other. Raises InvalidRequest."""
    servers(settings)
    security, login = settings.kafka_security, settings.kafka_security in _LOGIN
    for name, value in (
        ("MLAAS_KAFKA_SASL_MECHANISM", settings.kafka_sasl_mechanism),
        ("MLAAS_KAFKA_USERNAME", settings.kafka_username),
        ("MLAAS_KAFKA_PASSWORD", settings.kafka_password),
    ):
        if login and not value:
            raise _wrong(name, f"{security} needs a login, and this is missing", f"Set {name}, or change MLAAS_KAFKA_SECURITY.")
        if value and not login:
            raise _wrong(name, f"this is for a login, and {security} has none", "Set MLAAS_KAFKA_SECURITY to SASL_SSL or SASL_PLAINTEXT.")
    for name, path in (
        ("MLAAS_KAFKA_CA", settings.kafka_ca),
        ("MLAAS_KAFKA_CERTIFICATE", settings.kafka_certificate),
        ("MLAAS_KAFKA_KEY", settings.kafka_key),
    ):
        if path and security not in _ENCRYPTED:
            raise _wrong(name, f"this is for TLS, and {security} has none", "Set MLAAS_KAFKA_SECURITY to SSL or SASL_SSL.")
    if bool(settings.kafka_certificate) != bool(settings.kafka_key):
        missing = "MLAAS_KAFKA_KEY" if settings.kafka_certificate else "MLAAS_KAFKA_CERTIFICATE"
        raise _wrong(missing, "a client's certificate and its key go together", f"Set {missing} as well.")


def _context(settings: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the certificate and the host's name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.kafka_ca:
        with _reading("MLAAS_KAFKA_CA", settings.kafka_ca, "certificates"):
            context.load_verify_locations(settings.kafka_ca)
    else:
        context.load_default_certs()
    if settings.kafka_certificate and settings.kafka_key:
        with _reading("MLAAS_KAFKA_KEY", settings.kafka_key, "an unencrypted key"):
            settings.kafka_key.read_bytes()
        with _reading("MLAAS_KAFKA_CERTIFICATE", settings.kafka_certificate, "a certificate that goes with MLAAS_KAFKA_KEY"):
            # An empty password, or OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(settings.kafka_certificate, settings.kafka_key, password="")
    return context


@contextmanager
def _reading(name: str, path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError:
        raise _wrong(name, "the file cannot be used", f"It must hold {what} in PEM.") from None
    except OSError:
        raise _wrong(name, "the file cannot be read", f"Name a file that holds {what} in PEM.") from None


def _login(settings: Settings) -> Login | None:
    mechanism, user, password = settings.kafka_sasl_mechanism, settings.kafka_username, settings.kafka_password
    if settings.kafka_security not in _LOGIN or not (mechanism and user and password):
        return None
    if mechanism != "PLAIN":  # RFC 5802 escapes these two in a SCRAM message, and kafka-python does not
        user = user.replace("=", "=3D").replace(",", "=2C")
    return Login(mechanism, user, password)


def _explain(settings: Settings, given: dict[str, Any]) -> None:
    """Raise what a server itself says against this connection, if one says anything."""
    for host, port in servers(settings):
        if refused := diagnose(host, port, given.get("ssl_context"), _login(settings)):
            raise refused


def _wrong(name: str, detail: str, remedy: str) -> InvalidRequest:
    return InvalidRequest(detail, field=name, remedy=remedy)
