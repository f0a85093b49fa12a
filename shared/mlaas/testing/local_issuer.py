"""An OpenID Connect issuer on loopback: serves its discovery document and its keys, signs tokens, and logs people in. For tests.

`/authorize` shows a page with a link that logs in who is in `claims`; `/token` takes each code once, with the verifier that its PKCE
challenge was made from, for the client and the address that it was given for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

__all__ = ["LocalIssuer"]


class LocalIssuer:
    """`url` is its name; `asked` lists the paths that were asked for; `away` lets it answer 503.

    `client` is the only one that is registered, public unless it has a `secret`. `claims` are those of the next id tokens, and
    `more` is what the discovery document says beside or instead of its own.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.client, self.secret, self.redirect_uris = "mlaas-web", "", list[str]()
        self.claims: dict[str, Any] = {}
        self.more: dict[str, Any] = {}
        self._codes: dict[str, dict[str, str]] = {}
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.asked: list[str] = []
        self.away = False
        self.rotate("first")
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                path, _, query = self.path.partition("?")
                asked = dict(parse_qsl(query))
                if not issuer.away and path == "/realms/test/authorize":
                    self._say(*issuer._authorized(asked))
                    return
                if not issuer.away and path == "/realms/test/logout":
                    self._say(302, asked["post_logout_redirect_uri"])
                    return
                body = None if issuer.away else issuer._documents().get(self.path)
                self.send_response(503 if issuer.away else 200 if body else 404)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def do_POST(self) -> None:
                issuer.asked.append(self.path)
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                status, body = (503, {}) if issuer.away else issuer._exchanged(form, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def _say(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Location" if status == 302 else "Content-Type", text if status == 302 else "text/html")
                self.end_headers()
                self.wfile.write(b"" if status == 302 else text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://{host}:{self._server.server_port}/realms/test"
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

    def _authorized(self, asked: dict[str, str]) -> tuple[int, str]:
        """A page that asks, or with `approved` the way back with a code; a request that is not as it should be is refused here."""
        known = asked.get("client_id") == self.client and asked.get("redirect_uri") in self.redirect_uris
        fit = asked.get("response_type") == "code" and asked.get("code_challenge_method") == "S256" and "openid" in asked.get("scope", "")
        if not known or not fit or not asked.get("code_challenge") or not asked.get("state"):
            return 400, "<h1>invalid_request</h1>"
        if "approved" not in asked:
            return 200, f'<h1>Log in</h1><a href="?{escape(urlencode({**asked, "approved": "1"}))}">Go on as ada</a>'
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return 302, f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def _exchanged(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        basic = f"Basic {base64.b64encode(f'{self.client}:{self.secret}'.encode()).decode()}"
        posted = form.get("client_id") == self.client and form.get("client_secret", "") == self.secret
        if not (authorization == basic if authorization else posted):
            return 401, {"error": "invalid_client"}
        asked = self._codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if not asked or asked["redirect_uri"] != form.get("redirect_uri") or asked["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        token = self.token(**{"aud": self.client, "azp": self.client, "nonce": asked.get("nonce"), **self.claims})
        return 200, {"access_token": "opaque", "token_type": "Bearer", "expires_in": 300, "id_token": token}

    def _documents(self) -> dict[str, Any]:
        path = "/realms/test"
        keys = [{**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"} for kid, key in self.keys.items()]
        return {
            f"{path}/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/certs",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "end_session_endpoint": f"{self.url}/logout",
                **self.more,
            },
            f"{path}/certs": {"keys": keys},
        }
