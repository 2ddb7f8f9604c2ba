# One image for the worker and the simulators of docker-compose.yaml, which set the command.
FROM python:3.11-slim-bookworm

WORKDIR /app
COPY requirements/run.txt requirements/run.txt
RUN pip install --no-cache-dir --require-hashes -r requirements/run.txt

COPY pyproject.toml catalogue.json README.md LICENSE ./
COPY exactly_once exactly_once
COPY topics topics
COPY processors processors
COPY streams streams
COPY simulators simulators
COPY oracle oracle
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && useradd --create-home dabbawala \
    && install --directory --owner=dabbawala /data

USER dabbawala
ENV DABBAWALA_DIR=/data PYTHONUNBUFFERED=1
VOLUME /data
CMD ["faust", "-A", "streams.app", "worker", "-l", "info"]
