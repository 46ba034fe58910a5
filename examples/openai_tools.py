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
messages = [{"role": "user", "content": "What is the weather in Beijing?"}]


def get_weather(city):
    return f"Sunny and 22 degrees in {city}."


def ask(**more):
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=tools, temperature=0, max_tokens=100, **more
    )
    messages.append(answer.choices[0].message)
    return answer.choices[0].message


# Enforced: the answer is one call, whatever the model would rather write.
for call in ask(tool_choice="required", parallel_tool_calls=False).tool_calls:
    print("call:", call.function.name, call.function.arguments)
    result = get_weather(**json.loads(call.function.arguments))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

# Small models may call again when shown a bare result; a word from the user helps them.
messages.append({"role": "user", "content": "Say it in one sentence."})
print("answer:", ask().content)
