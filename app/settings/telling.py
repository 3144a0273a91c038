"""What the service tells others of itself: metrics, events, traces, webhooks."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from app.settings.parts import Network, long_enough, split_list


class Telling(BaseSettings):
    """Metrics, traces and webhooks."""

    metrics_token: SecretStr = Field(
        default=SecretStr(""),
        description="What Prometheus shows at /metrics as Bearer, of at least 32 characters; needed there with COPPICE_AUTH.",
    )
    worker_metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of each worker's own /metrics; empty: none. Workers of one host need one each.",
    )
    worker_metrics_host: str = Field(default="127.0.0.1", description="Address of the same; 0.0.0.0 in a container.")
    worker_events: bool = Field(
        default=False,
        description="Workers tell Celery's monitors (Flower) what they do, and answer to them: whoever reaches the broker may "
        "then stop workers too. Needs Redis.",
    )

    tracing: bool = Field(
        default=False,
        description="Tell an OpenTelemetry collector of requests and jobs, by OTLP over HTTP; where it is say "
        "OTEL_EXPORTER_OTLP_ENDPOINT and OpenTelemetry's other variables.",
    )

    webhook_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks that webhooks may reach besides the public internet, e.g. 10.1.0.0/16,fd00::/8; empty: none.",
    )
    webhook_poll_s: float = Field(default=1, gt=0, description="How often the API looks for webhook messages to send.")

    _split_networks = field_validator("webhook_networks", mode="before")(split_list)

    @field_validator("metrics_token")
    @classmethod
    def _long_enough_token(cls, value: SecretStr) -> SecretStr:
        long_enough(value)
        return value

    @field_validator("tracing")
    @classmethod
    def _exporter_there(cls, value: bool) -> bool:
        if value and (find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None):
            raise ValueError("tracing needs OpenTelemetry: pip install 'coppice-server[otel]'")
        return value
