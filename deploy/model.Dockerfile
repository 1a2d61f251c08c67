# Answers requests with pictures by one registered model; docs/models.md shows how to start it.
FROM python:3.11-slim

COPY constraints.txt pyproject.toml README.md LICENSE /app/
COPY src /app/src
RUN pip install --no-cache-dir --constraint /app/constraints.txt '/app[cpu]'

RUN useradd --system model
USER model
WORKDIR /tmp
# Python would write compiled files beside the model, which is mounted read-only.
ENV PYTHONDONTWRITEBYTECODE=1
EXPOSE 5017
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5017/ping', timeout=5)"]
ENTRYPOINT ["vgg16-transfer", "serve", "--model", "/model", "--host", "0.0.0.0"]
