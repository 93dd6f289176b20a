# docker build -t bidsdnn .
# docker run --rm --read-only --tmpfs /tmp -v /data:/data:ro -v /out:/out bidsdnn /data /out participant
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
RUN python3 -m venv /opt/bidsdnn
WORKDIR /src
# What changes seldom comes first, so that a changed source does not install torch anew.
COPY pyproject.toml README.md LICENSE ./
COPY bidsdnn/__init__.py bidsdnn/__init__.py
RUN /opt/bidsdnn/bin/pip install --no-cache-dir .
COPY bidsdnn bidsdnn
RUN /opt/bidsdnn/bin/pip install --no-cache-dir --no-deps --force-reinstall .
# Weights that are baked in: --build-arg WEIGHTS="alexnet resnet18"
ARG WEIGHTS=""
RUN mkdir -p /opt/weights && if [ -n "${WEIGHTS}" ]; then /opt/bidsdnn/bin/bidsdnn-fetch ${WEIGHTS} --dir /opt/weights; fi

FROM ${BASE}
LABEL org.opencontainers.image.title="bidsdnn" \
      org.opencontainers.image.description="How well do deep networks explain brains?" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/bidsdnn /opt/bidsdnn
COPY --from=build /opt/weights /opt/weights
# Any uid may run it on a read-only root: caches go to /tmp, weights are read from /opt.
ENV TORCH_HOME=/opt/weights MPLCONFIGDIR=/tmp/matplotlib HOME=/tmp PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
ENTRYPOINT ["/opt/bidsdnn/bin/bidsdnn"]
