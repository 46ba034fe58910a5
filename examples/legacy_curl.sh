#!/usr/bin/env bash
# The tutorial's curl: POST / with a prompt and the history.
set -euo pipefail

url="${QWEN_OPENAI_BASE_URL:-http://127.0.0.1:6006}"
curl --silent --show-error --fail -X POST "${url%/v1}" \
    -H 'Content-Type: application/json' \
    ${QWEN_OPENAI_API_KEY:+-H "Authorization: Bearer $QWEN_OPENAI_API_KEY"} \
    -d '{"prompt": "你好", "history": []}'
echo
