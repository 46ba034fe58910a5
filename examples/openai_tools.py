"""Calling a function with the official OpenAI SDK: pip install openai"""

import json
import os

from openai import OpenAI

base_url = os.environ.get("QWEN_OPENAI_BASE_URL", "http://127.0.0.1:6006/v1")
client = OpenAI(base_url=base_url, api_key=os.environ.get("QWEN_OPENAI_API_KEY", "none"))
model = client.models.list().data[0].id

city = {"type": "string", "description": "The name of the city."}
parameters = {"type": "object", "properties": {"city": city}, "required": ["city"]}
weather = {"name": "get_weather", "description": "The weather now.", "parameters": parameters}
tools = [{"type": "function", "function": weather}]
question = "Is it warm in Beijing today? Look it up, then answer in a sentence."
messages = [{"role": "user", "content": question}]


def get_weather(city):
    return f"Sunny and 22 degrees in {city}."


# "required" is enforced: the answer is a call, whatever the model would rather write.
answer = client.chat.completions.create(
    model=model, messages=messages, tools=tools, tool_choice="required", temperature=0
)
messages.append(answer.choices[0].message)
for call in answer.choices[0].message.tool_calls:
    print("call:", call.function.name, call.function.arguments)
    result = get_weather(**json.loads(call.function.arguments))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

answer = client.chat.completions.create(
    model=model, messages=messages, tools=tools, tool_choice="none", temperature=0, max_tokens=100
)
print("answer:", answer.choices[0].message.content)
