# The images of Nightcap:
#
#   control   the webhook, the controller and the retrieval service
#   sidecar   the dormant program and the capture worker
#   demo      the application of the walk-through
#
#   docker build --target control -t nightcap-control .
#
# For another processor name it, and a base that there is for it:
#
#   docker build --platform linux/arm64 --build-arg BASE=python:3.12-slim --target control .
#
# The base needs Debian and a Python of at least 3.11; what it lacks is installed. Two secrets carry
# the builder's own authorities and package index where it has any, and are part of no image:
#
#   --secret id=ca,src=BUNDLE.crt --secret id=pip.conf,src=FILE
ARG BASE=python:3.12-slim

# What every program needs to run: libpcap, for the sidecar's captures and the webhook's filters.
FROM ${BASE} AS runtime
RUN --mount=type=secret,id=ca \
    ldconfig -p | grep -q 'libpcap\.so\.0\.8' \
    || { trust="-o Acquire::https::CAInfo=/run/secrets/ca"; [ -e /run/secrets/ca ] || trust=""; \
         apt-get update -q $trust \
         && apt-get install -y -q $trust --no-install-recommends libpcap0.8 \
         && rm -rf /var/lib/apt/lists/*; }
# No shell and no tool stays: who breaks into a program of ours finds Python, and nothing else to
# run. From here on a step names its program itself.
RUN ["python3", "-c", "import os, pathlib\nplaces = ('/bin', '/sbin', '/usr/bin', '/usr/sbin', '/usr/local/bin', '/usr/local/sbin')\nfor place in {os.path.realpath(place) for place in places}:\n    for file in pathlib.Path(place).glob('*'):\n        if not file.name.startswith('python') and not file.is_dir():\n            file.unlink()"]
# Compiled files are made below, where the file system can still be written.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1


# What only the build needs; nothing is copied from here but its results.
FROM ${BASE} AS tools
RUN --mount=type=secret,id=ca \
    trust="-o Acquire::https::CAInfo=/run/secrets/ca"; [ -e /run/secrets/ca ] || trust=""; \
    pip=""; python3 -m pip --version || pip=python3-pip; \
    apt-get update -q $trust \
    && apt-get install -y -q $trust --no-install-recommends gcc libc6-dev $pip


# The packages of others, in a layer of their own: they change less often than our sources.
FROM tools AS packages
COPY requirements/control.txt /tmp/control.txt
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip.conf \
    PIP_CONFIG_FILE=/run/secrets/pip.conf \
    python3 -m pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check \
        --root-user-action=ignore --only-binary=:all: --target=/packages -r /tmp/control.txt
# Compiled files are not checked against the sources' times: a copy may change those, and nobody
# edits an image. The client's asynchronous half is as large as the rest together,
# and nothing here imports it.
RUN rm -rf /packages/kubernetes/aio \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /packages


# The dormant program is static C: it is all that runs in a pod that is not captured.
FROM tools AS compiler
COPY sidecar/dormant.c sidecar/errand.c sidecar/pump.c /build/
# The worker runs by the base's own Python, wherever that has it.
RUN for program in dormant errand; do \
        gcc -std=c11 -Wall -Wextra -Os -static -s -o "/build/$program" \
            -DWORKER_PYTHON="\"$(command -v python3)\"" "/build/$program.c" || exit 1; \
    done
# What the worker writes packets by. It calls libpcap by addresses that it is given.
RUN gcc -std=c11 -Wall -Wextra -O2 -shared -fPIC -s -o /build/pump.so /build/pump.c


# The worker gives Python its path itself, and its program file is named in dormant.c.
FROM runtime AS sidecar
WORKDIR /nightcap/app
COPY --from=compiler /build/dormant /build/errand /nightcap/
COPY --from=compiler /build/pump.so ./
COPY nightcap/__init__.py nightcap/
COPY nightcap/contract nightcap/contract
COPY nightcap/pcap nightcap/pcap
COPY sidecar sidecar
RUN ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "."]
# Harmless by itself; who injects it says root, since NET_RAW reaches no other user.
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
# Not COPY --from, which reads thousands of files before each build to see that none has changed:
# this is done again exactly when the list of packages changes.
COPY requirements/control.txt /opt/packages.txt
RUN --mount=type=bind,from=packages,source=/packages,target=/mnt \
    ["python3", "-c", "import shutil; shutil.copytree('/mnt', '/opt/packages', symlinks=True)"]
COPY nightcap nightcap
COPY certs certs
COPY webhook webhook
COPY controller controller
COPY retrieval retrieval
RUN ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "."]
USER 65532:65532
ENTRYPOINT ["python3", "-m"]
