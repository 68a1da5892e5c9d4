"""How a task says what it is about to do, so that the session sees a call that hangs, and leaves out calls of its kind from then on."""

from __future__ import annotations

import json
import os
from typing import Any

LINES, HUNG = "GPU_SESSION_LINES", "GPU_SESSION_HUNG"  # environment: the file that the session reads, and the kinds of calls that hung


def tell(line: dict[str, Any]) -> None:
    """Append a line for the session; outside of one, nothing."""
    if path := os.environ.get(LINES):
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")


def about_to(call: str, *parts: str, within: float = 30.0) -> bool:
    """Say so: where no other line comes `within` seconds, the session kills this process. False where the call or a part hung before."""
    if {call, *parts}.intersection(json.loads(os.environ.get(HUNG, "[]"))):
        tell({"left out": call})
        return False
    tell({"about to": call, "within": within})
    return True
