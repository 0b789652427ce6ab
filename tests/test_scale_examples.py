"""The files of docs/scale: what they would start, as Composer's launcher reads it."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from composer.cli import launcher

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config

SLURM = Path("docs/scale/slurm.sh")
KUBERNETES = Path("docs/scale/kubernetes.yaml")

# Slurm's programs, as far as the script needs them: two nodes of four GPUs.
STUBS = {
    "scontrol": 'test "$1 $2 $3" = "show hostnames node[3-4]" && printf "node3\\nnode4\\n"',
    "srun": 'test "$1" = --kill-on-bad-exit=1 && shift\n'
    'for node in 0 1; do SLURM_NODEID=$node SLURM_NNODES=2 SLURM_GPUS_ON_NODE=4 TMPDIR=/local$node "$@"; done',
    "composer": 'printf "%s\\n" "$@" ---',
}


def read_by_launcher(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> argparse.Namespace:
    monkeypatch.setattr(sys, "argv", ["composer", *arguments])
    return launcher._parse_args()


def test_slurm_starts_one_launcher_a_node(monkeypatch, tmp_path):
    for name, content in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{content}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"SLURM_JOB_NODELIST": "node[3-4]", "SLURM_JOB_ID": "123456"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    given = ["yamls/pretrain.yaml", "output=/shared/my runs", "data.unpaired.local=$TMPDIR/unpaired"]
    done = subprocess.run(
        ["bash", str(SLURM), *given], env=os.environ | variables | path, capture_output=True, text=True, check=True
    )
    nodes = [part.strip("\n").split("\n") for part in done.stdout.split("---\n") if part]
    assert len(nodes) == 2
    for number, arguments in enumerate(nodes):
        read = read_by_launcher(monkeypatch, *arguments)
        assert (read.nproc, read.world_size, read.node_rank, read.base_rank) == (4, 8, number, 4 * number)
        assert (read.master_addr, read.master_port) == ("node3", 23456)
        assert read.training_script == "train.py"
        assert read.training_script_args == given


def kubernetes() -> tuple[dict[str, Any], dict[str, Any]]:
    service, job = yaml.safe_load_all(KUBERNETES.read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    return service, job


def test_kubernetes_starts_one_launcher_a_pod(monkeypatch):
    _, job = kubernetes()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pods = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == pods
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "1"))  # the index of the second pod
    read = read_by_launcher(monkeypatch, "train.py", *container["args"])
    assert (read.nproc, read.world_size, read.node_rank, read.base_rank) == (gpus, pods * gpus, 1, gpus)
    assert read.master_addr == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert 'ENTRYPOINT ["composer", "train.py"]' in Path("Dockerfile").read_text()
    config = load_config(TrainConfig, container["args"][0], container["args"][1:])
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert config.output in mounted
    assert all(
        "/cache" in mounted and str(s.location()[1]).startswith("/cache/") for s in config.data.streams().values()
    )


def test_kubernetes_names_agree():
    service, job = kubernetes()
    name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    (rule,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"]["matchLabels"] == service["spec"]["selector"]
    (container,) = pod["containers"]
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    memory = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
    assert memory["emptyDir"]["medium"] == "Memory"
