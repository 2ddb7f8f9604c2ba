# One image for the worker and the simulators of docker-compose.yaml, which set the command.
ARG PYTHON=python:3.11-slim-bookworm

# Installs everything into /venv, then removes the installers from it.
FROM ${PYTHON} AS build
WORKDIR /app
COPY requirements/run.txt requirements/run.txt
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements/run.txt
COPY pyproject.toml catalogue.json README.md LICENSE ./
COPY exactly_once exactly_once
COPY topics topics
COPY processors processors
COPY streams streams
COPY simulators simulators
COPY oracle oracle
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && /venv/bin/pip uninstall --yes setuptools pip \
    && /venv/bin/python -m compileall -q /app

FROM ${PYTHON}
RUN useradd --create-home --uid 10001 dabbawala \
    && install --directory --owner=dabbawala --group=dabbawala --mode=0700 /data /access \
    && pip uninstall --yes --root-user-action=ignore setuptools wheel pip
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
USER 10001:10001
ENV PATH=/venv/bin:$PATH DABBAWALA_DIR=/data PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /data
CMD ["faust", "-A", "streams.app", "worker", "-l", "info"]
