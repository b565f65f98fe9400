# The BIDS App as a container. `make image` builds it with docker, or with buildah where there is no
# engine. By hand (BuildKit or buildah):
#
#     docker build --build-arg TORCH_INDEX=<index of the CPU builds> --tag difftract-bids .
#     docker run --rm --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" \
#         --volume /path/to/bids:/data:ro --volume /path/to/out:/out --volume /path/to/work:/work \
#         difftract-bids /data /out participant --work-dir /work
#
# Apptainer: add --containall, which keeps the host's /tmp and HOME out, and --bind the three folders.
#
# TORCH_INDEX is the index that PyTorch alone is taken from. pytorch.org/get-started names it. Left
# empty, pip takes the default build of its own index, which on PyPI brings CUDA along (gigabytes).

ARG BASE_IMAGE=debian:bookworm-slim

# An empty stand-in for a folder of wheels: `--build-context wheels=DIR` puts a real one in its place,
# and `--build-arg PIP_ARGS="--no-index --find-links /wheels"` then builds without a package index.
FROM scratch AS wheels

FROM ${BASE_IMAGE}

# ensurepip is what Debian leaves out of python3 and keeps in python3-venv.
RUN python3 -c 'import ensurepip, venv' 2>/dev/null \
    || { apt-get update \
        && DEBIAN_FRONTEND=noninteractive \
            apt-get install --yes --no-install-recommends python3 python3-venv \
        && apt-get clean && rm -rf /var/lib/apt/lists/*; }

ARG TORCH_INDEX=""
ARG PIP_ARGS=""

# The dependencies in a layer of their own, which a change of the package's code does not rebuild.
# Bytecode that is never checked against its source stays valid where an image's time stamps are
# rewritten; on a read-only root, stale bytecode would be compiled anew at every start. (One file of
# PyTorch is written for a newer Python and never compiles: hence `|| true`.)
RUN --mount=type=bind,source=pyproject.toml,target=/src/pyproject.toml \
    --mount=type=bind,source=constraints.txt,target=/src/constraints.txt \
    --mount=type=bind,from=wheels,target=/wheels \
    set -eu; \
    python3 -m venv /opt/difftract; \
    pip() { /opt/difftract/bin/python -m pip --no-cache-dir --disable-pip-version-check "$@"; }; \
    if [ -n "${TORCH_INDEX}" ]; then \
        pip install --no-compile --no-deps --index-url "${TORCH_INDEX}" \
            --constraint /src/constraints.txt torch; \
    fi; \
    /opt/difftract/bin/python -c "import tomllib; print(*tomllib.load(open('/src/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > /tmp/requirements.txt; \
    pip install --no-compile ${PIP_ARGS} --constraint /src/constraints.txt \
        --requirement /tmp/requirements.txt; \
    rm /tmp/requirements.txt; \
    /opt/difftract/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash \
        /opt/difftract/lib || true

# Nothing is kept under HOME, which may be missing, unwritable or shared with the host. Caches go to
# /tmp, the one place besides the mounted folders that has to be writable. PYTHONNOUSERSITE: Apptainer
# mounts the user's HOME, and packages in ~/.local must not take the place of the image's own.
ENV PATH=/opt/difftract/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLBACKEND=Agg \
    NO_ET=1 \
    XDG_CACHE_HOME=/tmp/difftract-cache \
    XDG_CONFIG_HOME=/tmp/difftract-cache/config \
    XDG_DATA_HOME=/tmp/difftract-cache/data \
    MPLCONFIGDIR=/tmp/difftract-cache/matplotlib \
    TORCH_HOME=/tmp/difftract-cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/tmp/difftract-cache/torchinductor \
    DIPY_HOME=/tmp/difftract-cache/dipy \
    NIPYPE_CONFIG_DIR=/tmp/difftract-cache/nipype \
    TEMPLATEFLOW_HOME=/templateflow

# TemplateFlow unpacks an index of its archive at the first import. It is done here, because a
# read-only root could not do it later; mount a filled TEMPLATEFLOW_HOME over it to work offline.
RUN --mount=type=bind,target=/src \
    --mount=type=bind,from=wheels,target=/wheels \
    set -eu; \
    python -m pip --no-cache-dir --disable-pip-version-check \
        install --no-compile --no-deps ${PIP_ARGS} /src; \
    python -m compileall -qq --invalidation-mode unchecked-hash \
        /opt/difftract/lib/python3*/site-packages/difftract_bids; \
    python -W ignore -c 'import templateflow.api'; \
    chmod -R a+rwX "${TEMPLATEFLOW_HOME}"; \
    difftract-bids --version; \
    rm -rf /tmp/difftract-cache

ARG VERSION=""
ARG VCS_REF=""
ARG BUILD_DATE=""
# What derivatives name the image by; who knows its digest gives that instead.
ENV DIFFTRACT_CONTAINER=difftract-bids:${VERSION}
LABEL org.opencontainers.image.title="difftract-bids" \
      org.opencontainers.image.description="From diffusion MRI to structural connectomes through differentiable tractography: a BIDS App" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${VCS_REF}" \
      org.opencontainers.image.created="${BUILD_DATE}" \
      org.label-schema.schema-version="1.0" \
      org.label-schema.name="difftract-bids" \
      org.label-schema.description="From diffusion MRI to structural connectomes through differentiable tractography: a BIDS App" \
      org.label-schema.version="${VERSION}" \
      org.label-schema.vcs-ref="${VCS_REF}" \
      org.label-schema.build-date="${BUILD_DATE}"

WORKDIR /tmp
ENTRYPOINT ["difftract-bids"]
