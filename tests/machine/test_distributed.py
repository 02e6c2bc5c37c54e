"""One process, several processes and accumulation give the same gradients and statistics at equal BatchNorm groups."""

import time

import pytest
import torch
import torch.nn.functional as F
from robust_transfer.attacks import L2, Starts, pgd
from robust_transfer.configuration.training import Attack, Recipe
from robust_transfer.machine import launch
from robust_transfer.machine.distributed import ALONE, process_group
from robust_transfer.networks.build import build
from robust_transfer.training.loop import Adversary, Training, fit
from robust_transfer.training.schedules import TrainingError
from support.prepared_datasets import squares
from support.processes import start
from support.training import CLASSES, SIDE, augmented, loader_of, trained
from torch import nn

N, GROUP, EPS = 14, 4, L2(0.5)
ATTACK = Attack(steps=2, random_start=True)


def images_and_labels():
    pixels, labels = squares(N)
    return augmented(pixels).double(), labels


def step(team=ALONE):
    """Tensors and gradients after one step of Training, in float64, on this process's share of an attacked batch."""
    network = build("resnet8_w4", CLASSES, seed=0).double().train()
    recipe = Recipe(batch_size=16, batchnorm_group=GROUP, average_decay=0.5)
    images, labels = images_and_labels()
    adversary = Adversary(network, EPS, ATTACK, 0, SIDE)
    done = Training(network, recipe, 0, team, 0.1, torch.device("cpu"))
    mine = torch.arange(N).split(GROUP)[team.rank :: team.size]
    parts = ((adversary(images[group], labels[group], 3, group), labels[group]) for group in mine)
    done.learn(parts, images=N, groups=4, rate=0.1)
    gradients = {f"gradient.{name}": parameter.grad for name, parameter in network.named_parameters()}
    return {**done.tensors(), **gradients}


def reference():
    """The same in plain code: all groups in one graph, statistics by hand; also the sum of losses."""
    network = build("resnet8_w4", CLASSES, seed=0).double()
    images, labels = images_and_labels()
    attacked = pgd(network.eval(), images, labels, EPS, ATTACK, Starts(0, 3, torch.arange(N)))
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    network.train()
    losses: list[torch.Tensor] = []
    statistics: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in norms}

    def note(name, x):
        statistics[name].append((x.mean((0, 2, 3)), x.transpose(0, 1).flatten(1).var(1)))

    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0].detach()))
    for group in torch.arange(N).split(GROUP):
        losses.append(F.cross_entropy(network(attacked[group]), labels[group], reduction="sum"))
    loss = torch.stack(losses).sum()
    (loss / N).backward()
    tensors = {f"gradient.{name}": parameter.grad for name, parameter in network.named_parameters()}
    for name, groups in statistics.items():
        means, variances = (torch.stack(values).mean(0) for values in zip(*groups, strict=True))
        tensors[f"network.{name}.running_mean"] = 0.1 * means
        tensors[f"network.{name}.running_var"] = 0.9 + 0.1 * variances
    return tensors, loss.detach()


def assert_close_by_name(actual, expected):
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-10, atol=1e-10, msg=name)


def test_accumulation_equals_one_graph_over_all_groups():
    expected, loss = reference()
    actual = step()
    assert_close_by_name(actual, expected)
    torch.testing.assert_close(actual["loss"], loss, rtol=1e-10, atol=1e-10)


def test_two_processes_compute_what_one_does(tmp_path):
    code = f"""if True:
        import torch
        from machine import test_distributed as test
        from robust_transfer.machine.distributed import process_group
        with process_group("cpu") as team:
            torch.save(test.step(team), {str(tmp_path)!r} + f"/{{team.rank}}.pt")
    """
    run_team(code, processes=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert_close_by_name(one, step())


def test_a_group_of_the_whole_batch_is_ordinary_batchnorm():
    """Bit for bit."""
    whole, _ = trained(Recipe(epochs=1, batch_size=12, augmentation="flip"))
    group, _ = trained(Recipe(epochs=1, batch_size=12, augmentation="flip", batchnorm_group=12))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, group.state_dict()[name]), name


def test_smaller_groups_give_other_gradients():
    grouped = step()["gradient.body.stem.0.weight"]
    network = build("resnet8_w4", CLASSES, seed=0).double()
    images, labels = images_and_labels()
    attacked = pgd(network.eval(), images, labels, EPS, ATTACK, Starts(0, 3, torch.arange(N)))
    F.cross_entropy(network.train()(attacked), labels).backward()
    assert (network.get_parameter("body.stem.0.weight").grad - grouped).abs().max() > 1e-3


def test_more_processes_than_groups_are_refused(monkeypatch):
    recipe = Recipe(epochs=1, batch_size=12, augmentation="flip")
    team = type(ALONE)(rank=0, size=2)
    network = build("resnet8_w4", CLASSES)
    with pytest.raises(TrainingError, match=r"2 processes for batches of 1 BatchNorm group: set .* 6 or less"):
        fit(network, loader_of(*squares(), recipe), recipe, input_size=SIDE, seed=0, team=team)


def test_without_environment_variables_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group("cpu") as team:
        assert (team.rank, team.size, team.is_main, team.largest(3)) == (0, 1, True, 3)


class TestLaunch:
    def run(self, body, processes=2):
        code = f"""if True:
            import sys
            from robust_transfer.machine import launch
            launch.PATIENCE = 1.0
            launch.COMMAND = [sys.executable, "-c", {body!r}]
            sys.exit(launch.launch({processes}, []))
        """
        launcher = start(code)
        printed, _ = launcher.communicate(timeout=60)
        return launcher.returncode, printed

    def test_each_process_gets_its_rank(self):
        # One write a line: pieces of several processes' lines would mix.
        names = "' '.join(os.environ[n] for n in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'))"
        status, printed = self.run(f"import os; os.write(1, ({names} + '\\n').encode())", 3)
        assert sorted(printed.split("\n")[:3]) == ["0 0 3", "1 1 3", "2 2 3"]
        assert status == 0

    def test_a_process_that_fails_ends_the_others(self):
        body = "import os, sys, time; sys.exit(7) if os.environ['RANK'] == '1' else time.sleep(50)"
        started = time.monotonic()
        assert self.run(body)[0] == 7
        assert time.monotonic() - started < 40  # and not the 50 that the first would sleep


def run_team(code, processes):
    """Run code in several processes that find each other by the variables that torchrun sets."""
    variables = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(launch._free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    started = [start(code, variables=variables | {"RANK": str(rank)}) for rank in range(processes)]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
