"""A small OpenID Connect provider, run as a process by the tests: real keys, JWKS, codes, PKCE, client secret.

`python oidc_provider.py CLIENT_ID CLIENT_SECRET` prints its issuer and serves until it is killed. POST /behave with a
JSON object says how it behaves from then on (`Behaviour`), which is how it is made to lie.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import sys
import time
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwk, jwt

KEY = jwk.RSAKey.generate_key(2048, {"kid": "published", "use": "sig"})
# Has the id of the published key, but is another one.
STRANGE_KEY = jwk.RSAKey.generate_key(2048, {"kid": "published", "use": "sig"})


def forged(algorithm: str, claims: dict[str, Any]) -> str:
    """A token nobody with the private key signed: with no signature (`none`), or (`HS256`) with an HMAC whose secret is
    the public key. By hand, since joserfc refuses to make either.
    """

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = ".".join(part(json.dumps(one).encode()) for one in ({"alg": algorithm, "kid": "published"}, claims))
    proofs = {"none": b"", "HS256": hmac.digest(KEY.as_pem(private=False), signed.encode(), "sha256")}
    return f"{signed}.{part(proofs[algorithm])}"


@dataclass
class Behaviour:
    """`claims` replace those of the ID token (null removes one); the rest are ways to be wrong."""

    claims: dict[str, Any] = field(default_factory=dict)
    deny: bool = False
    strange_key: bool = False
    algorithm: str = "RS256"
    # Answers without an ID token, but with its claims unsigned beside it.
    unsigned: bool = False
    broken_token_endpoint: bool = False
    # Says in its description that it is somebody else.
    issuer: str = ""


class Provider(ThreadingHTTPServer):
    """What it remembers: the codes it gave out, and how it shall behave."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server_port}/realm"
        self.client_id = client_id
        self.client_secret = client_secret
        self.codes: dict[str, dict[str, str]] = {}
        self.behaviour = Behaviour()

    def id_token(self, nonce: str) -> tuple[str, dict[str, Any]]:
        """A signed ID token, and its claims."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer, "sub": "subject-1", "aud": self.client_id, "iat": now, "exp": now + 300,
            "nonce": nonce, "preferred_username": "dana", "given_name": "Dana", "family_name": "Example",
        }  # fmt: skip
        claims.update(self.behaviour.claims)
        claims = {name: value for name, value in claims.items() if value is not None}
        algorithm = self.behaviour.algorithm
        key: Any = STRANGE_KEY if self.behaviour.strange_key else KEY
        if algorithm not in ("RS256", "RS384"):
            return forged(algorithm, claims), claims
        return jwt.encode({"alg": algorithm, "kid": "published"}, claims, key, algorithms=[algorithm]), claims


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _answer(self, status: int, body: object, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        provider = self.server
        if parts.path == "/realm/.well-known/openid-configuration":
            self._answer(200, {
                "issuer": provider.behaviour.issuer or provider.issuer,
                "authorization_endpoint": f"{provider.issuer}/authorize",
                "token_endpoint": f"{provider.issuer}/token",
                "jwks_uri": f"{provider.issuer}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            })  # fmt: skip
        elif parts.path == "/realm/keys":
            self._answer(200, {"keys": [KEY.as_dict(private=False)]})
        elif parts.path == "/realm/authorize":
            self._authorize({name: values[-1] for name, values in parse_qs(parts.query).items()})
        else:
            self._answer(404, {})

    def _authorize(self, asked: dict[str, str]) -> None:
        """Everybody is signed in at this provider already."""
        provider = self.server
        wanted = {"response_type": "code", "client_id": provider.client_id, "code_challenge_method": "S256"}
        if any(asked.get(name) != value for name, value in wanted.items()) or "openid" not in asked["scope"].split():
            return self._answer(400, {"error": "invalid_request"})
        if provider.behaviour.deny:
            sent = {"error": "access_denied", "error_description": "Not today.", "state": asked["state"]}
        else:
            code = secrets.token_urlsafe(16)
            provider.codes[code] = asked
            sent = {"code": code, "state": asked["state"]}
        return self._answer(302, {}, Location=f"{asked['redirect_uri']}?{urlencode(sent)}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        provider = self.server
        if self.path == "/behave":
            provider.behaviour = Behaviour(**json.loads(body))
            return self._answer(200, asdict(provider.behaviour))
        if self.path != "/realm/token":
            return self._answer(404, {})
        if provider.behaviour.broken_token_endpoint:
            return self._answer(503, {})
        sent = {name: values[-1] for name, values in parse_qs(body).items()}
        secret = base64.b64encode(f"{provider.client_id}:{provider.client_secret}".encode()).decode()
        if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Basic {secret}"):
            return self._answer(401, {"error": "invalid_client"})
        # Once only.
        asked = provider.codes.pop(sent.get("code", ""), None)
        if (
            asked is None
            or sent.get("redirect_uri") != asked["redirect_uri"]
            or create_s256_code_challenge(sent.get("code_verifier", "")) != asked["code_challenge"]
        ):
            return self._answer(400, {"error": "invalid_grant"})
        token, claims = provider.id_token(asked["nonce"])
        proof = {"userinfo": claims} if provider.behaviour.unsigned else {"id_token": token}
        return self._answer(200, {"access_token": secrets.token_urlsafe(16), "token_type": "Bearer", **proof})


if __name__ == "__main__":
    running = Provider(sys.argv[1], sys.argv[2])
    print(running.issuer, flush=True)
    running.serve_forever()
