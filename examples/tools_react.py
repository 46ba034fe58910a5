"""Function calling with a server that runs Qwen-7B-Chat: pip install openai"""

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


for _ in range(3):
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=tools, temperature=0, max_tokens=100
    )
    message = answer.choices[0].message
    messages.append(message)
    for call in message.tool_calls or ():
        print("call:", call.function.name, call.function.arguments)
        result = get_weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    if not message.tool_calls:
        print("answer:", message.content)
        break
