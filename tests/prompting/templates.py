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
