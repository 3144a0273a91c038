"""URLs of brokers: how TLS is asked for."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

PLAIN, TLS = "redis", "rediss"
_REQUIREMENT = "ssl_cert_reqs"
_REQUIREMENTS = ("required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE")
_OPTIONS = ("ssl_ca_certs", _REQUIREMENT, "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")


def with_tls(url: str) -> str:
    """Check the options of TLS in a broker's URL, and ask for the server's certificate where nothing else is said.

    Celery takes ``rediss://`` without options for TLS with anybody.

    Raises:
        ValueError: An option of TLS does not exist, or has no such value.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if any(name.startswith("ssl") and name not in _OPTIONS for name in options):
        raise ValueError(f"has an option of TLS that does not exist; there are {', '.join(_OPTIONS)}")
    if options.get(_REQUIREMENT, _REQUIREMENTS[0]) not in _REQUIREMENTS:
        raise ValueError(f"{_REQUIREMENT} must be one of {', '.join(_REQUIREMENTS[:3])}")
    if parts.scheme != TLS or _REQUIREMENT in options:
        return url
    return urlunsplit(parts._replace(query=urlencode({**options, _REQUIREMENT: _REQUIREMENTS[0]}, safe="/")))


def is_verified(url: str) -> bool:
    """Return whether the broker is reached by TLS, and its certificate verified."""
    parts = urlsplit(url)
    return parts.scheme == TLS and dict(parse_qsl(parts.query)).get(_REQUIREMENT, "").lower().endswith("required")
