"""An OpenID Connect issuer on loopback: serves its discovery document and its keys, and signs tokens. For tests."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

__all__ = ["LocalIssuer"]


class LocalIssuer:
    """`url` is its name; `asked` lists the paths that were asked for; `away` lets it answer 503."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.asked: list[str] = []
        self.away = False
        self.rotate("first")
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                body = None if issuer.away else issuer._documents().get(self.path)
                self.send_response(503 if issuer.away else 200 if body else 404)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/realms/test"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def rotate(self, kid: str) -> None:
        """Sign with a new key from now on, and publish no other."""
        self.keys = {kid: rsa.generate_private_key(public_exponent=65537, key_size=2048)}

    def token(self, *, key: Any = None, algorithm: str = "RS256", kid: str | None = None, **claims: Any) -> str:
        """A token for the audience `mlaas` that is good for five minutes; `claims` replace its own, with None they are left out."""
        own, now = next(iter(self.keys)), int(time.time())
        said = {"iss": self.url, "aud": "mlaas", "sub": "ada", "iat": now, "nbf": now, "exp": now + 300, **claims}
        body = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(body, self.keys[own] if key is None else key, algorithm=algorithm, headers={"kid": kid or own})

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _documents(self) -> dict[str, Any]:
        path = "/realms/test"
        keys = [{**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"} for kid, key in self.keys.items()]
        return {
            f"{path}/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/certs"},
            f"{path}/certs": {"keys": keys},
        }
