"""The tutorial's lines in a program of your own: pip install 'qwen-openai[transformers]' torch

Run it with a folder of Qwen-7B-Chat, or of any Qwen with safetensors:
    python qwen_chat_library.py ./Qwen-7B-Chat
"""

import sys

from qwen_openai import QwenChat

model = QwenChat.from_pretrained(sys.argv[1], device_map="auto").eval()

response, history = model.chat(None, "你好", history=None, do_sample=False, max_new_tokens=40)
print(response)

shown = ""
stream = model.chat_stream(None, "用一句话介绍北京。", history=history, max_new_tokens=40)
for text in stream:
    print(text[len(shown) :], end="", flush=True)
    shown = text
print(f"\n{stream.finish_reason} after {stream.completion_tokens} tokens")
