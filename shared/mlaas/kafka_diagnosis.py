"""Why a Kafka does not let this client in, asked of the server itself.

kafka-python tries again until its time is over, whatever the reason, and then says that it found no Kafka. This takes
the same steps once (TCP, TLS, ApiVersions, SASL) and says which of them failed, in terms of the platform's settings.
"""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidRequest

__all__ = ["Login", "diagnose"]

_SECONDS = 5.0
_API_VERSIONS, _METADATA, _HANDSHAKE, _AUTHENTICATE = (18, 0), (3, 4), (17, 1), (36, 0)  # keys and versions, in Kafka since 1.0
_UNSUPPORTED_MECHANISM, _NO_LOGIN_EXPECTED = 33, 34
_LONGEST_ANSWER = 1024**2


@dataclass(frozen=True)
class Login:
    """How to log in: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""

    mechanism: str
    user: str
    password: str = field(repr=False)


class _Closed(Exception):
    """The server ended the connection, or what it sent is not Kafka's protocol."""


def diagnose(host: str, port: int, context: ssl.SSLContext | None, login: Login | None) -> InvalidRequest | None:
    """What the server at `host` has against a client with this TLS `context` and `login`; None if nothing, or if none answers."""
    found = None
    for _ in range(2):  # one that ends in the middle of a conversation looks as if it wanted something else, but not twice
        found = _diagnose(host, port, context, login)
        if found is None or found.field != "MLAAS_KAFKA_SECURITY":
            break
    return found


def _diagnose(host: str, port: int, context: ssl.SSLContext | None, login: Login | None) -> InvalidRequest | None:
    try:
        tcp = socket.create_connection((host, port), timeout=_SECONDS)
    except OSError:
        return None
    with tcp:
        try:
            if context is None:
                return _converse(tcp, login)
            with context.wrap_socket(tcp, server_hostname=host) as encrypted:
                return _converse(encrypted, login)
        except ssl.SSLCertVerificationError as error:
            return _certificate(error)
        except ssl.SSLError as error:
            return _alert(error)
        except (_Closed, OSError):
            return _another_protocol(host, port) if context is None else None


def _converse(connection: socket.socket, login: Login | None) -> InvalidRequest | None:
    _ask(connection, _API_VERSIONS, b"")
    if login:
        return _log_in(connection, login)
    try:
        _ask(connection, _METADATA, struct.pack(">i?", 0, False))  # of no topic
    except _Closed:
        remedy = "Use SASL_SSL or SASL_PLAINTEXT, with a mechanism, user and password."
        return InvalidRequest("Kafka asks for a login at this port", field="MLAAS_KAFKA_SECURITY", remedy=remedy)
    return None


def _log_in(connection: socket.socket, login: Login) -> InvalidRequest | None:
    from kafka.net.sasl import get_sasl_mechanism

    answer = _ask(connection, _HANDSHAKE, _text(login.mechanism))
    if _int16(answer) == _UNSUPPORTED_MECHANISM:
        offered = ", ".join(_texts(answer[2:])) or "none"
        remedy = f"Set it to one that Kafka takes: {offered}."
        return InvalidRequest("Kafka does not take this way to log in", field="MLAAS_KAFKA_SASL_MECHANISM", remedy=remedy)
    if _int16(answer) == _NO_LOGIN_EXPECTED:
        remedy = "Use SSL or PLAINTEXT, or the port on which Kafka asks for a login."
        return InvalidRequest("Kafka takes no login at this port", field="MLAAS_KAFKA_SECURITY", remedy=remedy)
    mechanism: Any = get_sasl_mechanism(login.mechanism)(
        sasl_mechanism=login.mechanism, sasl_plain_username=login.user, sasl_plain_password=login.password
    )
    try:
        while not mechanism.is_done():
            token = mechanism.auth_bytes()
            answer = _ask(connection, _AUTHENTICATE, struct.pack(">i", len(token)) + token)
            if _int16(answer):
                return _refused_login()
            rest = answer[2:]
            rest = rest[2 + max(_int16(rest), 0) :]  # the error message, null here
            mechanism.receive(rest[4:])
    except (ValueError, KeyError):  # the server's part of SCRAM is not what this password gives
        return _refused_login()
    return None


def _ask(connection: socket.socket, api: tuple[int, int], body: bytes) -> bytes:
    """The answer's body to one request. Raises _Closed, OSError."""
    request = struct.pack(">hhi", *api, 1) + _text("mlaas") + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    if not 4 <= size <= _LONGEST_ANSWER:
        raise _Closed
    return _exactly(connection, size)[4:]


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        if not (part := connection.recv(size - len(found))):
            raise _Closed
        found += part
    return found


def _int16(data: bytes) -> int:
    if len(data) < 2:
        raise _Closed
    return int(struct.unpack(">h", data[:2])[0])


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _texts(data: bytes) -> list[str]:
    """An array of strings."""
    found, rest = [], data[4:]
    while rest:
        size = _int16(rest)
        found.append(rest[2 : 2 + size].decode(errors="replace"))
        rest = rest[2 + size :]
    return found


def _refused_login() -> InvalidRequest:
    remedy = "Check MLAAS_KAFKA_USERNAME, MLAAS_KAFKA_PASSWORD, and that this user logs in by MLAAS_KAFKA_SASL_MECHANISM."
    return InvalidRequest("Kafka refuses the login", field="MLAAS_KAFKA_PASSWORD", remedy=remedy)


def _certificate(error: ssl.SSLCertVerificationError) -> InvalidRequest:
    reason = error.verify_message
    if error.verify_code in (62, 64):  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        remedy = "Give the name or address that is in Kafka's certificate."
        return InvalidRequest("Kafka's certificate is for another host", field="MLAAS_KAFKA", remedy=remedy)
    remedy = "Name the file with the certificate of the authority that signed Kafka's."
    return InvalidRequest(f"Kafka's certificate is not trusted: {reason}", field="MLAAS_KAFKA_CA", remedy=remedy)


def _alert(error: ssl.SSLError) -> InvalidRequest:
    """What a TLS connection failed of: the server's alert, or that it does not speak TLS at all."""
    reason = error.reason or ""
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        remedy = "Set MLAAS_KAFKA_CERTIFICATE and MLAAS_KAFKA_KEY to a certificate that Kafka accepts."
        return InvalidRequest("Kafka asks for a client's certificate", field="MLAAS_KAFKA_CERTIFICATE", remedy=remedy)
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        remedy = "Use one signed by an authority that Kafka trusts, and not expired."
        return InvalidRequest("Kafka does not accept this client's certificate", field="MLAAS_KAFKA_CERTIFICATE", remedy=remedy)
    remedy = "Use PLAINTEXT or SASL_PLAINTEXT, or the port on which Kafka speaks TLS."
    return InvalidRequest("Kafka speaks no TLS at this port", field="MLAAS_KAFKA_SECURITY", remedy=remedy)


def _another_protocol(host: str, port: int) -> InvalidRequest | None:
    """A server that ended the conversation without TLS: does it speak TLS?"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing but the greeting is exchanged
    try:
        with socket.create_connection((host, port), timeout=_SECONDS) as tcp, context.wrap_socket(tcp):
            pass
    except OSError:
        return None
    remedy = "Use SSL or SASL_SSL, or the port on which Kafka speaks without TLS."
    return InvalidRequest("Kafka speaks TLS at this port", field="MLAAS_KAFKA_SECURITY", remedy=remedy)
