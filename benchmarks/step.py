"""CPU time of a training step beside public code, of each saving, and of the teacher's update.

OMP_NUM_THREADS=1 python benchmarks/step.py; docs/performance.md explains the tables. What a step costs in numbers that
do not vary is in gates.py.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from contestants import Step, Task, check_losses
from gates import OURS, SWITCHES, TOLERANCE
from peer_step import Level
from rounds import interleave, machine, milliseconds, print_table, times_faster
from sizes import PLAIN, SIZES
from torch import nn

from maskedclip_composer.algorithms.ema_teacher import update_teacher
from maskedclip_composer.costs.counts import count_calls

PEERS: dict[str, Level] = {"peer P0, explicit attention": "explicit", "peer P1, SDPA": "sdpa"}


def contestants(task: Task) -> dict[str, Step]:
    """Build the rows of the table: peers, the plain path, all savings, and all but one."""
    steps = {name: task.peer(level) for name, level in PEERS.items()}
    steps |= {"ours, plain": task.ours(PLAIN), "ours": task.ours(OURS)}
    return steps | {f"ours without {name}": task.ours(replace(OURS, **{name: False})) for name in SWITCHES}


def compare_steps(task: Task, rounds: int) -> None:
    """Print the table of one text length."""
    steps = contestants(task)
    difference = check_losses(steps, TOLERANCE)
    costs = interleave(steps, rounds=rounds)
    print(f"{task.pairs} + {task.pairs} images, {task.texts} texts, the peer's padded to {task.max_tokens} tokens.")
    print(f"The losses of all variants agree within {difference:.0e} (allowed {TOLERANCE:.0e}).\n")
    first, second = (costs[name] for name in PEERS)
    rows = [
        [name, milliseconds(own, 1), times_faster(first, own), times_faster(second, own)] for name, own in costs.items()
    ]
    print_table(["step", "CPU ms", "times faster than P0", "times faster than P1"], rows)


@torch.no_grad()
def update_in_loop(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Update the teacher as most public code does."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.mul_(momentum).add_(new, alpha=1 - momentum)


def compare_teacher_updates(student: nn.Module, *, rounds: int, repeats: int = 20) -> None:
    """Print what the package's update costs, and what the loop costs."""
    teacher = copy.deepcopy(student)
    for parameter in teacher.parameters():
        nn.init.normal_(parameter)
    updates = {"foreach": update_teacher, "loop over parameters": update_in_loop}
    results = []
    for update in updates.values():
        target = copy.deepcopy(teacher)
        update(target, student, 0.9)
        results.append(torch.cat([parameter.data.flatten() for parameter in target.parameters()]))
    torch.testing.assert_close(*results)
    calls = {name: count_calls(partial(update, teacher, student, 0.999)) for name, update in updates.items()}

    def many(update: Callable[..., None]) -> None:
        for _ in range(repeats):
            update(teacher, student, 0.999)

    costs = interleave({name: partial(many, update) for name, update in updates.items()}, rounds=rounds)
    rows = [
        [name, count, milliseconds(costs[name], repeats), times_faster(costs[name], costs["foreach"])]
        for name, count in calls.items()
    ]
    print_table(["teacher update", "ATen calls", "CPU ms", "CPU of this / CPU of the first"], rows)


def main() -> None:
    """Read the sizes and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=SIZES, default="bench-ti", help="(%(default)s)")
    parser.add_argument("--pairs", type=int, default=4, help="and as many unpaired images (%(default)s)")
    parser.add_argument("--texts", type=int, default=2, help="different texts of the pairs (%(default)s)")
    parser.add_argument("--max-tokens", type=int, nargs="+", default=[77, 256], help="of the peer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each variant (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = Task(sizes=SIZES[args.sizes], pairs=args.pairs, texts=args.texts, max_tokens=77)
    net = task.ours(PLAIN).net
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    print(f"Step: {args.sizes}, {args.rounds} rounds, {machine()}\n")
    for max_tokens in args.max_tokens:
        compare_steps(replace(task, weights=weights, max_tokens=max_tokens), args.rounds)
    branch = net.get_submodule("branch")
    compare_teacher_updates(branch, rounds=args.rounds)


if __name__ == "__main__":
    main()
