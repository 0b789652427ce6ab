# Training image with CUDA: docker build -t maskedclip . && docker run --gpus all --shm-size 16g -v $PWD/data:/app/data maskedclip yamls/pretrain.yaml
FROM nvidia/cuda:12.6.3-runtime-ubuntu24.04

ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# hadolint ignore=DL3008  # patch releases of the base distribution are wanted
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3.12 python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
RUN python3.12 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# The environment first: it changes less often than the code.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir maskedclip_composer data_prep \
    && touch maskedclip_composer/__init__.py data_prep/__init__.py \
    && pip install -c constraints.txt -e .

COPY maskedclip_composer maskedclip_composer
COPY data_prep data_prep
COPY yamls yamls
COPY train.py evaluate.py ./

RUN useradd --create-home --uid 10001 trainer && chown -R trainer /app
USER 10001

ENTRYPOINT ["composer", "train.py"]
CMD ["--help"]
