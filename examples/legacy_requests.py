"""The tutorial's own client of POST /, keeping the history: pip install requests"""

import os

import requests

url = os.environ.get("QWEN_OPENAI_BASE_URL", "http://127.0.0.1:6006").removesuffix("/v1")
key = os.environ.get("QWEN_OPENAI_API_KEY")
headers = {"Authorization": f"Bearer {key}"} if key else {}


def ask(prompt, history):
    data = {"prompt": prompt, "history": history, "max_length": 512}
    answer = requests.post(url, json=data, headers=headers, timeout=120)
    answer.raise_for_status()
    return answer.json()


first = ask("你好", [])
print(first["response"])
second = ask("请用一句话介绍你自己。", first["history"])
print(second["response"])
print(len(second["history"]), "turns at", second["time"])
