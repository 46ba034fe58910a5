# syntax=docker/dockerfile:1
# The gateway; with EXTRA=transformers also torch and what runs directories of weights on a card:
#     docker build -t qwen-openai .
#     docker build -t qwen-openai:gpu --build-arg EXTRA=transformers .

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRA=""
# torch is in no lock: its builds differ by machine. This is the one that the tests ran with.
ARG TORCH=2.13.0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /srv/venv
ENV PATH=/srv/venv/bin:$PATH
WORKDIR /src
# The locks first, so that a change of the code does not fetch the packages again.
COPY requirements*.lock ./
RUN if [ -n "$EXTRA" ]; then pip install --only-binary :all: "torch==$TORCH"; fi \
    && pip install --require-hashes --only-binary :all: -r "requirements${EXTRA:+-$EXTRA}.lock"
COPY pyproject.toml README.md LICENSE ./
COPY qwen_openai qwen_openai
RUN pip install --no-deps --no-build-isolation .

FROM python:${PYTHON}-slim
# libgomp is what llama.cpp and torch share their work with.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin qwen \
    && install -d -o qwen -g qwen /models /state
COPY --from=build /srv/venv /srv/venv
COPY configs /etc/qwen-openai
ENV PATH=/srv/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    QWEN_OPENAI_HOME=/models \
    QWEN_OPENAI_DATABASE=/state/gateway.db \
    QWEN_OPENAI_HOST=0.0.0.0
USER qwen
WORKDIR /state
# Weights and, apart from them, keys and usage: the second is what to back up.
VOLUME ["/models", "/state"]
EXPOSE 6006
# Ready, and not only alive: compose's depends_on waits for it. A model is fetched at the first start.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m --start-interval=2s \
    CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('QWEN_OPENAI_PORT', 6006)), timeout=2); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
# The program itself is process 1, so that SIGTERM begins the drain.
ENTRYPOINT ["qwen-openai"]
CMD ["serve"]
