"""Content negotiation between two representations (RFC 9110, section 12.5.1)."""

from __future__ import annotations


def prefers_html(accept: str) -> bool:
    """Return whether a client is a browser: it asks for HTML by name, at least as much as for JSON."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weights[kind] = next((_weight(p) for p in parameters if p.startswith("q=")), 1.0)
    html = max(weights.get("text/html", 0.0), weights.get("application/xhtml+xml", 0.0))
    return html > 0 and html >= weights.get("application/json", 0.0)


def _weight(parameter: str) -> float:
    try:
        return min(1.0, max(0.0, float(parameter[2:])))
    except ValueError:
        return 0.0
