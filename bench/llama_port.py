"""The baseline of `bench.streams`: llama.cpp's own HTTP server, set up exactly as our engine is.

Run as a child: `python -m bench.llama_port CONFIG_JSON`; it prints its port when it is ready.
"""

import importlib
import json
import sys
import threading
from urllib.parse import urlsplit

from qwen_openai.engines.llamacpp.child import parameters


def main() -> None:
    config = json.loads(sys.argv[1])
    params = parameters(config)
    params.api_keys = ["bench"]
    params.n_threads_http = 2 * config["slots"] + 2
    server = importlib.import_module("xllamacpp").Server(params)
    print(urlsplit(server.listening_address).port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
