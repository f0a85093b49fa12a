# The images of the platform: `make images`, or e.g. `docker build --target serve --tag mlaas-serve .`
#
# serve      every function, the relay and the Kafka sink, on the processor. One image: the container's arguments choose the function.
# serve-gpu  the same with ONNX Runtime for NVIDIA GPUs.
# serve-models  serve with the models of build/models in it; models: nothing but those, for a volume. Nothing is baked into the others.
# train      the jobs (training, indexes, predictions for files): serve and torch, transformers, optimum. Trains on GPUs, too.
#
# BASE is any image with Python 3.11 as `python3` and Debian's C library; images/base.sh makes one without a registry.
ARG BASE=python:3.11-slim-bookworm

# What all images have. The file system may be read-only: whatever is written goes to MLAAS_HOME and /tmp, which are mounted.
FROM ${BASE} AS runtime
ENV PATH=/opt/mlaas/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MLAAS_HOME=/var/lib/mlaas HOME=/var/lib/mlaas \
    MLAAS_FUNCTION=functions/classify
WORKDIR /app
COPY functions functions
COPY eventing eventing
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
CMD ["python", "-m", "mlaas.serve"]

# Packages go into a virtual environment with the pins of constraints.txt. Nothing of pip, nor of a compiler, gets into the images.
# The platform's own code is a layer above theirs: a new version of it is a few megabytes to build, to push and to pull.
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
RUN ["python3", "-m", "venv", "/tools"]
RUN ["python3", "-m", "venv", "--without-pip", "/opt/mlaas"]
WORKDIR /source
COPY images/slim.py images/sbom.py images/install.py images/
COPY pyproject.toml constraints.txt README.md ./
COPY shared/mlaas/__init__.py shared/mlaas/

FROM build AS own
ARG PIP_INDEX_URL=""
ARG PIP_CERT=""
COPY shared shared
RUN ["/tools/bin/python", "images/install.py", "own"]

FROM build AS serve-packages
ARG PIP_INDEX_URL=""
ARG PIP_CERT=""
RUN ["/tools/bin/python", "images/install.py", "packages", "cpu,tracing"]

FROM runtime AS serve
COPY --from=serve-packages /opt/mlaas /opt/mlaas
COPY --from=own /opt/mlaas /opt/mlaas

FROM build AS train-packages
ARG PIP_INDEX_URL=""
ARG PIP_CERT=""
RUN ["/tools/bin/python", "images/install.py", "packages", "cpu,train,tracing"]

FROM runtime AS train
COPY --from=train-packages /opt/mlaas /opt/mlaas
COPY --from=own /opt/mlaas /opt/mlaas

FROM build AS serve-gpu-packages
ARG PIP_INDEX_URL=""
ARG PIP_CERT=""
RUN ["/tools/bin/python", "images/install.py", "packages", "gpu,tracing"]

FROM runtime AS serve-gpu
COPY --from=serve-gpu-packages /opt/mlaas /opt/mlaas
COPY --from=own /opt/mlaas /opt/mlaas

FROM serve AS serve-models
COPY build/models /models
ENV MLAAS_STAGED=/models

FROM scratch AS models
COPY build/models /
