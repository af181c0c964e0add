# The images of Nightcap:
#
#   control   the webhook, the controller and the retrieval service
#   sidecar   the dormant program and the capture worker
#   demo      the application of the walk-through
#
#   docker build --target control -t nightcap-control .
#
# The base needs Debian and a Python of at least 3.11; what it lacks is installed. The mounts named
# `pip.conf` and `ca` carry the builder's own package index and authorities where there are any
# (`--secret id=pip.conf,src=FILE`); they never become part of an image.
ARG BASE=python:3.12-slim

# What every program needs to run: libpcap, for the sidecar's captures and the webhook's filters.
FROM ${BASE} AS runtime
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    ldconfig -p | grep -q 'libpcap\.so\.0\.8' \
    || { apt-get update -q \
         && apt-get install -y -q --no-install-recommends libpcap0.8 \
         && rm -rf /var/lib/apt/lists/*; }
# Compiled files are made below, where the file system can still be written.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1


# The packages of others, in a layer of their own: they change less often than our sources.
FROM ${BASE} AS packages
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip --version \
    || { apt-get update -q \
         && apt-get install -y -q --no-install-recommends python3-pip; }
COPY requirements/control.txt /tmp/control.txt
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check \
        --root-user-action=ignore --only-binary=:all: --target=/packages -r /tmp/control.txt
# Not checked against the sources' times: a copy may change those, and nobody edits an image.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /packages


# The dormant program is static C: it is all that runs in a pod that is not captured.
FROM ${BASE} AS compiler
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    apt-get update -q && apt-get install -y -q --no-install-recommends gcc libc6-dev
COPY sidecar/dormant.c /build/
# The worker runs by the base's own Python, wherever that has it.
RUN gcc -std=c11 -Wall -Wextra -Os -static -s -o /build/dormant \
        -DWORKER_PYTHON="\"$(command -v python3)\"" /build/dormant.c


# The worker gives Python its path itself, and its program file is named in dormant.c.
FROM runtime AS sidecar
WORKDIR /nightcap/app
COPY --from=compiler /build/dormant /nightcap/dormant
COPY nightcap/__init__.py nightcap/
COPY nightcap/contract nightcap/contract
COPY nightcap/pcap nightcap/pcap
COPY sidecar sidecar
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .
USER 65532:65532
ENTRYPOINT ["/nightcap/dormant"]


FROM ${BASE} AS demo
COPY demo/app.py /opt/demo/app.py
ENV PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["python3", "/opt/demo/app.py"]


FROM runtime AS control
WORKDIR /opt/nightcap
ENV PYTHONPATH=/opt/nightcap:/opt/packages
COPY --from=packages /packages /opt/packages
COPY nightcap nightcap
COPY certs certs
COPY webhook webhook
COPY controller controller
COPY retrieval retrieval
RUN python3 -m compileall -q --invalidation-mode unchecked-hash .
USER 65532:65532
ENTRYPOINT ["python3", "-m"]
