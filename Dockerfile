# diffbench with its exact versions. The folder that is mounted at /work gets the results:
#
#   docker build -t diffbench .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" diffbench --cores 2
#   apptainer build diffbench.sif docker-daemon://diffbench:latest
#   apptainer run --bind "$PWD:/work" --pwd /work diffbench.sif --cores 2
#
# With a GPU: docker build --build-arg TORCH=cuda, then docker run --gpus all or apptainer run --nv.
FROM python:3.12-slim

ARG TORCH=cpu

# Debian's git and make of the day: results do not depend on them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /diffbench

WORKDIR /diffbench
COPY . .
RUN make setup TORCH="$TORCH" PYTHON=python3.12

# Caches where every user can write.
ENV HOME=/tmp XDG_CACHE_HOME=/tmp/.cache MPLCONFIGDIR=/tmp/.cache/matplotlib
WORKDIR /work
USER 1000
ENTRYPOINT ["/diffbench/.venv/bin/snakemake", "--snakefile", "/diffbench/Snakefile"]
CMD ["--cores", "all"]
