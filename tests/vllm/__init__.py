"""The gateway in front of real vLLM servers; scripts/test-vllm runs this."""
