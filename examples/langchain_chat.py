"""The same through LangChain, whole and streamed: pip install langchain-openai"""

import os

from langchain_openai import ChatOpenAI
from openai import OpenAI

base_url = os.environ.get("QWEN_OPENAI_BASE_URL", "http://127.0.0.1:6006/v1")
api_key = os.environ.get("QWEN_OPENAI_API_KEY", "none")
model = OpenAI(base_url=base_url, api_key=api_key).models.list().data[0].id

chat = ChatOpenAI(base_url=base_url, api_key=api_key, model=model, temperature=0, max_tokens=100)

print(chat.invoke([("system", "Answer with one word."), ("human", "2 + 2 = ?")]).content)
for piece in chat.stream("Name three fruits."):
    print(piece.content, end="", flush=True)
print()
