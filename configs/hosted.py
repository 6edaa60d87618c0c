"""Settings of the hosted painter: an images API that speaks OpenAI's protocol."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Json = str | int | float | bool


class HostedSettings(BaseModel):
    """Which model paints, where, and what a picture costs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="the model's name, as its server knows it")
    base_url: str | None = Field(None, description="server, http://host:port/v1; null means OpenAI")
    api_key_env: str | None = Field(
        None, description="environment variable with the server's key; null: OPENAI_API_KEY for OpenAI, else none"
    )
    size: str = Field("1024x1024", pattern=r"^(auto|[1-9]\d{1,4}x[1-9]\d{1,4})$", description="WIDTHxHEIGHT, or auto")
    quality: str | None = Field(None, description="in the model's own words, such as low or high; null: its default")
    background: Literal["transparent", "opaque"] | None = Field(
        "transparent", description="what to ask for; a model that does not offer it is asked without"
    )
    extra: dict[str, Json] = Field({}, description="further fields of each request, in the server's words")
    send_seed: bool = Field(False, description="send the image's seed; some local servers heed it, OpenAI refuses it")
    usd_per_image: float = Field(0.0, ge=0, description="price of a picture; a refused one costs nothing")
    timeout_s: float = Field(180.0, gt=0, description="of one request")
    max_retries: int = Field(3, ge=0, le=20, description="of a request that met an outage; `Retry-After` is heeded")
    concurrency: int = Field(4, ge=1, le=64, description="requests at once")
