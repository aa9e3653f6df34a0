# The service, on the CPU:
#   docker build -t forearm .
#   docker run --rm -p 127.0.0.1:8000:8000 -e FOREARM_API_KEY=at-least-16-characters forearm
# Files of a folder:
#   docker run --rm -v "$PWD:/work" -w /work --user "$(id -u):$(id -g)" forearm protect photos/ -o armed/
# Nodes of a Ray cluster, all of one version: docker build --build-arg EXTRAS=service,ray,cloud -t forearm .

FROM python:3.12-slim-bookworm AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
# torch before everything else and from its own index: the usual index has builds with several GB of CUDA alone.
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY src src
ARG EXTRAS=service
RUN /venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 10001 forearm
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/forearm
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["forearm"]
CMD ["serve", "--host", "0.0.0.0"]
