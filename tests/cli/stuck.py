"""A program for tests: `serve` on a scripted model, whose first step lasts as long as is said.

python -m tests.cli.stuck SECONDS STALL_TIMEOUT DRAIN_TIMEOUT
"""

import sys
import time
from collections.abc import Iterable

from qwen_openai.cli.loading import Loading
from qwen_openai.cli.serve import run
from qwen_openai.engines.base import Engine
from qwen_openai.engines.qwen_chat.engine import QwenChatEngine, QwenChatOptions
from qwen_openai.settings import Loaded, Settings
from tests.engines.qwen_chat.scripted import Scripted, Step


def main() -> None:
    seconds, stall, drain = map(float, sys.argv[1:])

    def script(query: str) -> Iterable[Step]:
        sys.stdout.write("step\n")
        sys.stdout.flush()
        # The hang itself: native code that does not return, and that nothing can interrupt.
        time.sleep(seconds)
        yield "late"

    def make(settings: Settings, progress: Loading) -> Engine:
        options = QwenChatOptions("m", stall_timeout=settings.stall_timeout)
        return QwenChatEngine(lambda: Scripted(script), options)

    values = {"port": 0, "stall_timeout": stall, "drain_timeout": drain}
    run(Loaded(Settings.model_validate(values), {}), time.monotonic(), make)


if __name__ == "__main__":
    main()
