"""Servers that speak OpenAI's protocol: their address, and whose key they get.

A key is read from the environment and goes only where its owner pointed: to OpenAI, to the server that the
environment names, or to a recipe's `base_url` if the recipe also says which variable holds that server's key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from ..errors import ModelAccessError, RecipeError

NO_KEY = "none"
"""What a server that wants no key is sent: the client insists on something."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and its key."""

    base_url: str | None
    """None: OpenAI's own."""
    key: SecretStr


def resolve_endpoint(base_url: str | None, api_key_env: str | None) -> Endpoint:
    """The server that a recipe means, else the one that the environment names, else OpenAI.

    Raises:
        RecipeError: an address that is none, or holds a password.
        ModelAccessError: the key's environment variable is not set.
    """
    if base_url is not None:
        return Endpoint(check_url(base_url), read_key(api_key_env))
    if server := os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL"):
        variable = "OPENAI_API_KEY" if "OPENAI_API_KEY" in os.environ else None
        return Endpoint(check_url(server), read_key(api_key_env or variable))
    return Endpoint(None, read_key(api_key_env or "OPENAI_API_KEY"))


def check_url(url: str) -> str:
    """The URL itself, if it is one and holds no secret: a recipe is shared, and a trace shows the URL.

    Raises:
        RecipeError: it is none, or holds a user, password or query.
    """
    shown = repr(url) if "@" not in url and "?" not in url else "not shown, for it may hold a password"
    wanted = f"expected http://HOST:PORT/v1, got {shown}"
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise RecipeError(f"`base_url` is not a web address; {wanted}.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise RecipeError(
            f"`base_url` holds a user, password or query; {wanted}. "
            "Put the key into an environment variable and name that in `api_key_env`."
        )
    return url


def read_key(variable: str | None) -> SecretStr:
    """The key in an environment variable; without a variable, what stands for no key.

    Raises:
        ModelAccessError: the variable is not set.
    """
    if variable is None:
        return SecretStr(NO_KEY)
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ModelAccessError(
            f"no key: the environment variable {variable!r} is not set. Set it, or name another in `api_key_env`; "
            "a server of your own needs `base_url` and no key."
        )
    return SecretStr(key)
