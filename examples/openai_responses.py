"""The newer API, POST /v1/responses, whole and streamed: pip install openai"""

import os

from openai import OpenAI

base_url = os.environ.get("QWEN_OPENAI_BASE_URL", "http://127.0.0.1:6006/v1")
client = OpenAI(base_url=base_url, api_key=os.environ.get("QWEN_OPENAI_API_KEY", "none"))
model = client.models.list().data[0].id

items = [{"role": "user", "content": "What is the capital of France?"}]
first = client.responses.create(model=model, input=items, temperature=0, store=False)
print(first.output_text)

# The server keeps nothing: a second question brings the conversation along.
items += [*first.output, {"role": "user", "content": "Say that in Chinese."}]
stream = client.responses.create(
    model=model, input=items, temperature=0, max_output_tokens=100, store=False, stream=True
)
for event in stream:
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
    elif event.type == "response.completed":
        print(f"\n{event.response.usage.total_tokens} tokens")
