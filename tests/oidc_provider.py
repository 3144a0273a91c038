"""A real OpenID provider as a process on loopback: ``python -m tests.oidc_provider PORT SECONDS named|unnamed``.

It is `oidc-provider-mock`, whose protocol is authlib's: discovery, codes, signed tokens, keys. Two things are added: PKCE is
required (authlib's own check), and the test may have it sign with a new key.
"""

from __future__ import annotations

import re
import sys
import warnings
from datetime import timedelta

import flask
from authlib.oauth2.rfc7636 import CodeChallenge
from werkzeug.serving import make_server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports authlib's former JOSE
    import oidc_provider_mock
    from authlib.jose import RSAKey
    from oidc_provider_mock import _app

_challenges: dict[str, str] = {}
_AuthorizationCodeGrant, _OwnOpenIDCode = _app.AuthorizationCodeGrant, _app.OpenIDCode


class _Challenge(CodeChallenge):
    def validate_code_challenge(self, grant, redirect_uri):
        super().validate_code_challenge(grant, redirect_uri)
        assert grant.request.payload.data.get("code_challenge_method") == "S256", "PKCE is required here"

    def get_authorization_code_challenge(self, authorization_code):
        return _challenges[authorization_code.code]

    def get_authorization_code_challenge_method(self, authorization_code):
        return "S256"


class _Grant(_AuthorizationCodeGrant):
    def __init__(self, request, server):
        super().__init__(request, server)
        _Challenge(required=True)(self)

    def save_authorization_code(self, code, request):
        _challenges[code] = request.payload.data["code_challenge"]
        super().save_authorization_code(code, request)


class _OpenIDCode(_OwnOpenIDCode):
    def get_jwt_config(self, grant, client=None):
        config = super().get_jwt_config(grant, client)
        return config | {"kid": config["key"]["kid"]}


def make_app(lives_s: int, *, names_keys: bool) -> flask.Flask:
    """Make the provider: how long its tokens live, and whether they say by which of its keys they are signed."""
    _app.AuthorizationCodeGrant = _Grant
    if names_keys:
        _app.OpenIDCode = _OpenIDCode
    app = oidc_provider_mock.app(require_nonce=True, access_token_max_age=timedelta(seconds=lives_s))

    @app.post("/new-key")
    def new_key():
        flask.g.oidc_provider_mock_storage.jwk = RSAKey.generate_key(is_private=True)
        return "", 204

    @app.after_request
    def without_others(response):
        """Leave out what its pages load from other hosts: tests reach none."""
        if response.mimetype == "text/html":
            response.set_data(re.sub(r"<(link|script)[^>]*https://[^>]*>", "", response.get_data(as_text=True)))
        return response

    return app


if __name__ == "__main__":
    APP = make_app(int(sys.argv[2]), names_keys=sys.argv[3] == "named")
    make_server("127.0.0.1", int(sys.argv[1]), APP, threaded=True).serve_forever()
