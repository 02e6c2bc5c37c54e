"""Which of the state dicts in a checkpoint is the network's, and its names without the prefixes of training's wrappers.

Training programs write a state dict as the whole file or under a key: `model`, `state_dict`, `net`, … Some keep a
moving average of the weights (`state_dict_ema`, `model_ema`, …) beside the raw ones: two networks in one file, of which
the configuration chooses (`key:` of `kind: files`). Names carry the prefixes of the modules around the network in
training: DataParallel's and DistributedDataParallel's `module.`, torch.compile's `_orig_mod.`, and those of the classes
that hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from robust_transfer.weights.pickles import Checkpoint, CheckpointError, Placeholder, shown

STATE_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights", "params")
"""Keys of state dicts, the most usual first; of several that a file has the first is taken."""
WHOLE = "file"
"""What stands for a key where the state dict is all of the file."""

_AVERAGED = re.compile(r"(?:^|[._-])(?:ema|swa|averaged?|avg|polyak|shadow)(?:\d*$|[._-])", re.IGNORECASE)
"""Keys of moving averages: state_dict_ema, ema, swa_model, …"""
_OTHERS = re.compile(r"(?:^|[._-])(?:optim\w*|opt|\w*sched\w*|scaler|amp)(?:\d*$|[._-])", re.IGNORECASE)
"""Keys of what holds tensors by the weights' names and is no network, such as momenta."""
_DEPTH = 3  # dicts within each other that are searched: {checkpoint: {model: {state_dict: …}}}
_AVERAGES = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel

_WITHIN = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put into names, at any place."""
_AROUND = ("module.", "model.")
"""Prefixes that are removed wherever a name has them."""
_AROUND_ALL = ("net.", "network.", "backbone.", "encoder.")
"""Prefixes that are removed if all names have them, since they can be names of layers."""
_MEANS = ("normalizer.new_mean", "normalise.mean", "normalize.mean", "normalizer.mean", "mu")
_STDS = ("normalizer.new_std", "normalise.std", "normalize.std", "normalizer.std", "sigma")


@dataclass(frozen=True)
class Found:
    """A state dict of a checkpoint."""

    state: dict[str, Tensor]
    key: str
    """Where it is: a key, several joined by dots, the prefix of its names, or WHOLE."""
    averaged: bool
    """It holds a moving average of the weights."""
    others: tuple[str, ...] = ()
    """Keys of state dicts that were not taken, at most ten."""


@dataclass(frozen=True)
class Unwrapped:
    """A state dict by its network's own names, without the prefixes of the modules that wrapped it in training."""

    state: dict[str, Tensor]
    wrapper: str
    """The prefix that was removed: `module.model.`, …"""
    mean: Tensor | None
    std: Tensor | None
    averaged: bool = False
    """What was removed says that the weights are a moving average: `ema_model.`, …"""


def find_state(checkpoint: Checkpoint, path: Path, key: str | None = None) -> Found:
    """The state dict in a file's content: the one at `key`, or the one there is; anything beside it is ignored.

    `key` is a key of the file, several joined by dots (`ema.state_dict`), or what the names of the weights begin with
    (`model_ema`). Raises CheckpointError if there is none, if it holds anything but tensors, and without `key` if there
    are raw and averaged weights, or several of unknown names.
    """
    content = checkpoint.content
    if isinstance(content, Placeholder):
        raise CheckpointError(f"{path}: {_object(content.name)}")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, where a dict of weights is needed")
    candidates = dict(_state_dicts(content))
    if key is not None:
        return _at(content, candidates, key, path)
    if not candidates:
        return Found(*_without_candidates(content, path), averaged=False)
    averaged = [name for name in candidates if _is_averaged(name, candidates[name])]
    raw = [name for name in candidates if name not in averaged]
    known = [name for known in STATE_KEYS for name in raw if name.split(".")[0] == known]
    if averaged and (raw or len(averaged) > 1):
        what = f"raw weights ({_named(raw)}) and averaged ones ({_named(averaged)})" if raw else _named(averaged)
        example = averaged[0] if averaged[0] != WHOLE else raw[0]
        raise CheckpointError(
            f"{path}: has {what}; say which to take, as in `weights: {{kind: files, path: …, key: {shown(example)}}}`"
        )
    if len(raw) > 1 and not known:
        raise CheckpointError(
            f"{path}: has several dicts of weights ({_named(raw)}); say which to take, as in `weights: {{kind: files, "
            f"path: …, key: {shown(raw[0])}}}`"
        )
    taken = (averaged or known or raw)[0]
    others = tuple(shown(name) for name in candidates if name != taken)[:10]
    return Found(_tensors(candidates[taken], _where(path, taken)), taken, bool(averaged), others)


def _state_dicts(content: Mapping[Any, Any], above: str = "", depth: int = 0) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Dicts of weights in a file's content, each with its key: dots between the keys of dicts within each other."""
    if not above and _has_weights(content):
        yield WHOLE, {name: value for name, value in content.items() if not _holds_weights(value)}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, dict) or _OTHERS.search(key):
            continue
        is_known = not above and key in STATE_KEYS and any(isinstance(one, Tensor) for one in value.values())
        if is_known or _has_weights(value):
            yield above + key, value
        elif depth + 1 < _DEPTH:
            yield from _state_dicts(value, f"{above}{key}.", depth + 1)


def _has_weights(content: Mapping[Any, Any]) -> bool:
    """Whether a dict is one of weights: some layer's `weight` is in it."""
    return any(
        isinstance(name, str) and name.rpartition(".")[2] == "weight" and isinstance(value, Tensor)
        for name, value in content.items()
    )


def _holds_weights(value: Any) -> bool:
    return isinstance(value, dict) and bool(next(_state_dicts(value, "."), None) or _has_weights(value))


def _is_averaged(key: str, state: Mapping[Any, Any]) -> bool:
    return bool(_AVERAGED.search(key)) or _AVERAGES in state


def _at(content: dict[Any, Any], candidates: dict[str, dict[Any, Any]], key: str, path: Path) -> Found:
    """The state dict that the configuration names."""
    value: Any = content
    for part in [key] if key in content else key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, Placeholder):
        raise CheckpointError(f"{path}: {shown(key)!r} {_object(value.name)}")
    others = tuple(shown(name) for name in candidates if name != key)[:10]
    if isinstance(value, dict):
        inner = dict(_state_dicts(value, "."))
        if len(inner) == 1 and not any(isinstance(one, Tensor) for one in value.values()):
            (value,) = inner.values()
        return Found(_tensors(value, _where(path, key)), key, _is_averaged(key, value), others)
    if key == WHOLE and WHOLE in candidates:
        return Found(_tensors(candidates[WHOLE], _where(path, WHOLE)), key, False, others)
    prefix = key.removesuffix(".") + "."
    for state in candidates.values():
        named = {name.removeprefix(prefix): one for name, one in _strings(state).items() if name.startswith(prefix)}
        if named:
            return Found(_tensors(named, _where(path, key)), key, _is_averaged(key, {}), others)
    raise CheckpointError(
        f"{path}: has no weights at key {shown(key)!r}; it has them at {_named(list(candidates)) or 'no key'}"
    )


def _without_candidates(content: dict[Any, Any], path: Path) -> tuple[dict[str, Tensor], str]:
    """What may be weights though no name says so; raises CheckpointError where nothing is."""
    for name in STATE_KEYS:
        if isinstance(value := content.get(name), Placeholder):
            raise CheckpointError(f"{path}: {name!r} {_object(value.name)}")
        if isinstance(value, dict):
            return _tensors(value, _where(path, name)), name
    if not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path}: no weights in it: neither {' nor '.join(map(repr, STATE_KEYS))} nor tensors by name, but "
            f"{listed([repr(key) if isinstance(key, int) else _quoted(key) for key in content]) or 'nothing'}"
        )
    return _tensors(content, _where(path, WHOLE)), WHOLE


def _tensors(state: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    for name, value in state.items():
        if isinstance(name, Placeholder) or isinstance(value, Placeholder):
            culprit = name if isinstance(name, Placeholder) else value
            if culprit.name.startswith("a tensor "):
                raise CheckpointError(
                    f"{where} has {culprit.name} among its weights ({_quoted(name)}), a type that is not read; save "
                    "them as float32, float16 or bfloat16"
                )
            raise CheckpointError(
                f"{where} has {culprit.name} among its weights ({_quoted(name)}), which is not executed; save a "
                "state_dict() of tensors alone"
            )
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{where} has a {type(value).__name__} named {_quoted(name)} among its weights")
    return dict(state)


def _strings(state: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if isinstance(name, str)}


def _object(name: str) -> str:
    return f"is an object of {name}, which is not executed; save its state_dict() instead of the whole network"


def unwrapped(state: Mapping[str, Tensor], path: Path) -> Unwrapped:
    """Remove the prefixes of wrappers (`module.`, `model.`, `_orig_mod.`, …), however often each is there, the name of
    an average (`ema_model.`) if all names have it, and the second copy of the weights under `attacker.`.

    Mean and std are those of a `normalizer`, if there is one. Raises CheckpointError where two weights would get one
    name, where averaged weights are beside raw ones (`model_ema.…`), and for a mean without a std.
    """
    weights = {name: tensor for name, tensor in state.items() if name != _AVERAGES}
    within = [part for part in _WITHIN if any(part in name for name in weights)]
    for part in within:
        weights = _distinct({name.replace(part, ""): one for name, one in weights.items()}, weights, part, path)
    means, stds, around, before, averaged = list[Tensor](), list[Tensor](), "", None, False
    while before != around:
        before = around
        of_average = _prefix_of_average(weights)
        averaged = averaged or bool(of_average)
        for prefix in (*_AROUND, *_AROUND_ALL, *of_average):
            starts = [name.startswith(prefix) for name in weights]
            if any(starts) if prefix in _AROUND else starts and all(starts):
                _refuse_averages_beside(weights, around, path)
                bare = {name.removeprefix(prefix): one for name, one in weights.items()}
                weights, around = _distinct(bare, weights, prefix, path), around + prefix
            weights = {name: one for name, one in weights.items() if not name.startswith("attacker.")}
            means += [weights.pop(name) for name in _MEANS if name in weights]
            stds += [weights.pop(name) for name in _STDS if name in weights]
    _refuse_averages_beside(weights, around, path)
    if bool(means) != bool(stds):
        raise CheckpointError(
            f"{path}: has a normalisation's {'mean and no std' if means else 'std and no mean'}; it was saved in part: "
            "save both, or neither where images are normalised as ImageNet's"
        )
    wrapper = "".join(within) + around if around != "module." else around + "".join(within)
    return Unwrapped(weights, wrapper, means[0] if means else None, stds[0] if stds else None, averaged)


def _prefix_of_average(weights: Mapping[str, Tensor]) -> list[str]:
    """What all names begin with, if that is the name of a moving average; else nothing."""
    firsts = {name.partition(".")[0] for name in weights}
    return [f"{first}." for first in firsts if len(firsts) == 1 and _AVERAGED.search(first)]


def _distinct(renamed: dict[str, Tensor], state: dict[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    if len(renamed) != len(state):
        raise CheckpointError(
            f"{path}: has weights both as {prefix}<name> and as <name>; which of them to use is unclear"
        )
    return renamed


def _refuse_averages_beside(state: Mapping[str, Tensor], around: str, path: Path) -> None:
    """Raise CheckpointError where weights are there under the name of an average (`model_ema.…`) and without it."""
    parts = [name.partition(".") for name in state]
    averaged = {
        first: {rest for one, _, rest in parts if one == first} for first, _, _ in parts if _AVERAGED.search(first)
    }
    others = [(first, rest) for first, _, rest in parts if first not in averaged]
    raw = {rest for _, rest in others} | {f"{first}.{rest}" for first, rest in others}
    for first, names in averaged.items():
        if both := names & raw - {""}:
            key = shown(around + first)
            raise CheckpointError(
                f"{path}: has raw weights and averaged ones ({key}.…) of {_quoted(min(both))}; say which to take by "
                f"what their names begin with, as in `weights: {{kind: files, path: …, key: {key}}}`"
            )


def listed(what: list[str], most: int = 5) -> str:
    """Some of them, and how many more there are."""
    return "; ".join(what[:most]) + (f"; and {len(what) - most} more" if len(what) > most else "")


def _named(keys: list[str]) -> str:
    return listed([_quoted(key) for key in keys])


def _quoted(name: Any) -> str:
    """A key or name from a file, short and printable, in quotes where it is text."""
    if not isinstance(name, str | bytes):
        return shown(name.name if isinstance(name, Placeholder) else repr(name))
    text = shown(name if isinstance(name, str) else ascii(name[:120]))
    return text if text.startswith(("'", '"', "b'", 'b"')) else f"'{text}'"


def _where(path: Path, key: str) -> str:
    return f"{path}:" if key == WHOLE else f"{path}: {_quoted(key)}"
