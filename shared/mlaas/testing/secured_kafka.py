"""A real Apache Kafka that asks for TLS, a login or a client's certificate, with an authority of its own. Needs trustme."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..local.kafka_server import KafkaServer, Listener, free_port

__all__ = ["PASSWORD", "USER", "SecuredKafka", "secured_kafka"]

USER, PASSWORD = "scientist", "correct horse, battery=staple"
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True)
class SecuredKafka:
    """The server, and what a client needs: `ports` by listener (sasl, sasl_tls, mutual_tls, elsewhere) and PEM files."""

    server: KafkaServer
    ports: Mapping[str, int]
    ca: Path
    other_ca: Path
    certificate: Path
    key: Path

    def environ(self, listener: str, **changed: str) -> dict[str, str]:
        """The settings of a client of `listener` that is let in, but for what is `changed`; an empty value takes one away."""
        security = {"sasl": "SASL_PLAINTEXT", "mutual_tls": "SSL"}.get(listener, "SASL_SSL")
        found = {"MLAAS_KAFKA": f"127.0.0.1:{self.ports[listener]}", "MLAAS_KAFKA_SECURITY": security}
        if security.startswith("SASL"):
            found |= {"MLAAS_KAFKA_SASL_MECHANISM": "PLAIN", "MLAAS_KAFKA_USERNAME": USER, "MLAAS_KAFKA_PASSWORD": PASSWORD}
        if security.endswith("SSL"):
            found["MLAAS_KAFKA_CA"] = str(self.ca)
        if listener == "mutual_tls":
            found |= {"MLAAS_KAFKA_CERTIFICATE": str(self.certificate), "MLAAS_KAFKA_KEY": str(self.key)}
        return {**found, **changed}


@contextmanager
def secured_kafka() -> Iterator[SecuredKafka]:
    """A broker with one listener for each way in; `elsewhere` shows a certificate for another host."""
    import trustme

    with tempfile.TemporaryDirectory(prefix="mlaas-kafka-") as name:
        folder, authority = Path(name), trustme.CA()
        ca, other_ca, certificate, key = (folder / f"{one}.pem" for one in ("ca", "other-ca", "client", "client-key"))
        authority.cert_pem.write_to_path(str(ca))
        trustme.CA().cert_pem.write_to_path(str(other_ca))
        client = authority.issue_cert("client@example.org")
        key.write_bytes(client.private_key_pem.bytes())
        certificate.write_bytes(b"".join(blob.bytes() for blob in client.cert_chain_pems))
        keys = {host: _key_store(folder / f"{host}.pem", authority.issue_cert(*hosts.split())) for host, hosts in _HOSTS.items()}
        trusted = {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(ca), "ssl.client.auth": "required"}
        listeners = (
            Listener("SASL", "SASL_PLAINTEXT", free_port(), _login()),
            Listener("SASL_TLS", "SASL_SSL", free_port(), {**_login(), **keys["here"]}),
            Listener("MUTUAL_TLS", "SSL", free_port(), {**keys["here"], **trusted}),
            Listener("ELSEWHERE", "SASL_SSL", free_port(), {**_login(), **keys["elsewhere"]}),
        )
        with KafkaServer(folder / "data", free_port(), free_port(), listeners=listeners) as server:
            _add_scram_users(server.bootstrap)
            ports = {one.name.lower(): one.port for one in listeners}
            yield SecuredKafka(server, ports, ca, other_ca, certificate, key)


_HOSTS = {"here": "localhost 127.0.0.1", "elsewhere": "kafka.example.org"}


def _key_store(path: Path, certificate: Any) -> dict[str, str]:
    """Kafka reads a key in PKCS #8 and the certificate from one PEM file."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem + b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    return {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(path)}


def _login() -> dict[str, str]:
    module = "org.apache.kafka.common.security"
    plain = f'{module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    scram = {f"{one.lower()}.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;" for one in _MECHANISMS[1:]}
    return {"sasl.enabled.mechanisms": ",".join(_MECHANISMS), "plain.sasl.jaas.config": plain, **scram}


def _add_scram_users(bootstrap: str) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        users = [UserScramCredentialUpsertion(USER, ScramMechanism[one.replace("-", "_")], PASSWORD) for one in _MECHANISMS[1:]]
        failed = {name: error for user in users for name, error in admin.alter_user_scram_credentials([user]).items() if error}
        if failed:
            raise RuntimeError(f"Kafka did not take the users: {failed}")
    finally:
        admin.close()
