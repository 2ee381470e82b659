"""An authorization function for MLflow's auth app, as a company has one of its own: a token instead of a password."""

from __future__ import annotations

import os

from flask import Response, request
from werkzeug.datastructures import Authorization

TOKEN = "TEST_BEARER_TOKEN"
USER = "TEST_BEARER_USER"
"""Variables of the server: the one token that it takes, and whose it is."""


def authenticate() -> Authorization | Response:
    """Say whose the token is, or refuse."""
    given = request.authorization
    if given is not None and given.type == "bearer" and given.token == os.environ[TOKEN]:
        return Authorization("basic", {"username": os.environ[USER], "password": "unused"})
    answer = Response("a bearer token is wanted", status=401)
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer
