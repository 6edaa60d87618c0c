"""The `llm` section of a recipe: which language model plays which role."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ChatModelSettings(BaseModel):
    """One language model. A bare text stands for its `model`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        "embedded:smollm2",
        min_length=1,
        description="openai:NAME, ollama:NAME, huggingface:OWNER/NAME or folder, embedded:smollm2, "
        "or package.module:factory",
    )
    base_url: str | None = Field(None, description="an OpenAI-compatible server, http://HOST:PORT/v1")
    api_key_env: str | None = Field(None, description="environment variable that holds the server's key")
    temperature: float | None = Field(None, ge=0, le=2, description="null leaves it to the model")
    max_tokens: int | None = Field(
        None, ge=16, description="most tokens of one answer, thoughts included; null leaves it to the model"
    )
    timeout_s: float = Field(120.0, gt=0, description="of one request")
    max_retries: int = Field(3, ge=0, le=20, description="of a request that met an outage")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value


class LLMSettings(ChatModelSettings):
    """The model of every role, unless a role names its own; nothing of the common one is then inherited."""

    planner: ChatModelSettings | None = Field(None, description="lists what makes a class look diverse")
    writer: ChatModelSettings | None = Field(None, description="writes prompts and rethinks them")
    captioner: ChatModelSettings | None = Field(
        None, description="a model that takes images; it tells the writer what rejected pictures show. null: none does"
    )
    judge: ChatModelSettings | None = Field(
        None, description="a model that takes images; it validates what passed the measures. null: none looks"
    )
    second_judge: ChatModelSettings | None = Field(
        None, description="another one; where the two disagree, a person decides"
    )
    writer_prompt: str | None = Field(
        None, min_length=1, description="what the writer is asked: null, built-in; or a file that `optimize` wrote"
    )
    max_repairs: int = Field(1, ge=0, le=10, description="how often a model is shown what is wrong with its answer")

    @model_validator(mode="after")
    def _first_judge_first(self) -> LLMSettings:
        if self.second_judge is not None and self.judge is None:
            raise ValueError("second_judge is set and judge is not; name the one judge as `judge`")
        if self.second_judge is not None and self.judge is not None and self.second_judge.model == self.judge.model:
            raise ValueError(f"judge and second_judge are both {self.judge.model!r}; name two models")
        return self

    def of(self, role: Literal["planner", "writer"]) -> ChatModelSettings:
        """The model that plays a role."""
        return {"planner": self.planner, "writer": self.writer}[role] or self

    @property
    def judges(self) -> tuple[ChatModelSettings, ...]:
        """The vision models that validate; none, one or two."""
        return tuple(judge for judge in (self.judge, self.second_judge) if judge is not None)
