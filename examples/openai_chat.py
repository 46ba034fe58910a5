"""A conversation of two turns with the official OpenAI SDK: pip install openai"""

import os

from openai import OpenAI

base_url = os.environ.get("QWEN_OPENAI_BASE_URL", "http://127.0.0.1:6006/v1")
client = OpenAI(base_url=base_url, api_key=os.environ.get("QWEN_OPENAI_API_KEY", "none"))
model = client.models.list().data[0].id

messages = [{"role": "user", "content": "What is the capital of France?"}]
first = client.chat.completions.create(model=model, messages=messages, temperature=0)
print(first.choices[0].message.content)

messages += [
    {"role": "assistant", "content": first.choices[0].message.content},
    {"role": "user", "content": "Say that in Chinese."},
]
second = client.chat.completions.create(model=model, messages=messages, temperature=0)
print(second.choices[0].message.content)
print(second.usage.total_tokens, "tokens")
