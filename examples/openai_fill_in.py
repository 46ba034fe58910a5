"""Code filled in where the cursor is, as editors do: pip install openai

For models that were trained to, such as Qwen2.5-Coder.
"""

import os

from openai import OpenAI

base_url = os.environ.get("QWEN_OPENAI_BASE_URL", "http://127.0.0.1:6006/v1")
client = OpenAI(base_url=base_url, api_key=os.environ.get("QWEN_OPENAI_API_KEY", "none"))

before = "def is_even(number):\n    return "
after = "\n\n\nprint(is_even(4))\n"
answer = client.completions.create(
    model=client.models.list().data[0].id,
    prompt=before,
    suffix=after,
    temperature=0,
    max_tokens=40,
)
print(before + answer.choices[0].text + after)
