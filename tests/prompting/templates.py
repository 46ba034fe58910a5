"""Chat templates that stress rendering; written for these tests."""

# Takes an assistant's thoughts out of older turns and formats them itself in the last one.
THINKING = """\
{%- set ns = namespace(last=0) %}
{%- for message in messages if message.role == 'user' %}{% set ns.last = loop.length %}{% endfor %}
{%- set users = namespace(seen=0) %}
{%- for message in messages %}
    {%- set text = message.content %}
    {%- set thoughts = '' %}
    {%- if message.role == 'user' %}{% set users.seen = users.seen + 1 %}{% endif %}
    {%- if message.role == 'assistant' and '</think>' in text %}
        {%- set thoughts = text.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
        {%- set text = text.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and users.seen == ns.last %}
        {{- '<think>\\n' + thoughts + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- text + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

# Nothing between two messages, and a caller's text where a control token's middle would be.
GLUED = """\
{%- for message in messages %}
    {{- '<|' + message.content + '|>' + message.content + message.content }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}
"""

TRIMMING = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

REFUSING = """\
{%- if messages[0].role == 'system' %}{{ raise_exception('No system messages here.') }}{% endif %}
{%- for message in messages %}{{ message.content }}{% endfor %}
"""

# Leaves the assistant's text out.
FORGETTING = (
    "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
)

# Tools and calls as JSON, thoughts that can be switched off.
HERMES = """\
{%- if tools %}{{ '<|im_start|>system\\n<tools>' }}
    {%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}
    {{- '\\n</tools><tool_call>{"name", "arguments"}</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.reasoning_content %}
        {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
    {{- effort | default('') }}
{%- endif %}
"""

# Tags around whatever a schema calls its parts, as Qwen3-Coder has them: a control token could
# begin in the template, go on in a key, and end in the template. Always opens a thought.
TAGS = """\
{%- for tool in tools or [] %}
    {{- '<function>\\n<name>' ~ tool.function.name ~ '</name>' }}
    {%- for name, part in ((tool.function.parameters or {}).properties or {}).items() %}
        {{- '\\n<name>' ~ name ~ '</name>' }}
        {%- for key in part %}
            {{- '\\n<' ~ key ~ '>' ~ (part[key] | string) ~ '</' ~ key ~ '>' }}
        {%- endfor %}
    {%- endfor %}
    {{- '</function>' }}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>\\n<function=' + call.function.name + '>\\n' }}
        {%- for name, value in call.function.arguments | items %}
            {{- '<parameter=' + name + '>\\n' ~ value ~ '\\n</parameter>\\n' }}
        {%- endfor %}
        {{- '</function>\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}
"""
