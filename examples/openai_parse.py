"""Text read into a class, with the official OpenAI SDK: pip install openai"""

import os
from typing import Literal

from openai import OpenAI
from pydantic import BaseModel

base_url = os.environ.get("QWEN_OPENAI_BASE_URL", "http://127.0.0.1:6006/v1")
client = OpenAI(base_url=base_url, api_key=os.environ.get("QWEN_OPENAI_API_KEY", "none"))


class Event(BaseModel):
    name: str
    weekday: Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
    participants: list[str]


answer = client.chat.completions.parse(
    model=client.models.list().data[0].id,
    messages=[{"role": "user", "content": "Alice and Bob go to a science fair on Friday."}],
    response_format=Event,
    temperature=0,
    max_tokens=200,
)
event = answer.choices[0].message.parsed
print(event.name, "on", event.weekday, "with", ", ".join(event.participants))
