"""An MCP server over stdio whose tools print wherever they can, break, and take their time; run as a program."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, ConfigDict

from maskwright.serving.mcp import serve_stdio


class Words(BaseModel):
    """Arguments of every tool here."""

    model_config = ConfigDict(extra="forbid")
    words: str
    loud: bool = False


def shout(words: str, loud: bool = False) -> tuple[str, object]:
    sys.stdout.write(f"{words}\n")
    os.write(1, f"{words}\n".encode())
    subprocess.run(["echo", words], check=True)
    return f'{{"said": "{words}"}}', object()


def refuse(words: str, loud: bool = False) -> tuple[str, object]:
    raise ToolException(f"error: {words}; say something else")


def break_down(words: str, loud: bool = False) -> tuple[str, object]:
    raise ZeroDivisionError(words)


def dawdle(words: str, loud: bool = False) -> tuple[str, object]:
    time.sleep(2)
    return words, object()


def build_tools() -> list[BaseTool]:
    sys.stdout.write("building\n")
    return [
        StructuredTool(
            name=work.__name__,
            description=work.__name__,
            args_schema=Words,
            func=work,
            response_format="content_and_artifact",
            handle_tool_error=True,
        )
        for work in (shout, refuse, break_down, dawdle)
    ]


if __name__ == "__main__":
    serve_stdio(build_tools)
