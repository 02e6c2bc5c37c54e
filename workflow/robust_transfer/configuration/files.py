"""Read configuration files: YAML in UTF-8, one document that is a mapping, no key twice. Every mistake names the file.

Snakemake reads a file that `--configfile` names before it reads the Snakefile, and so before this module does: a file
that its own reader refuses never comes here. `python -m robust_transfer check` and `make demo` ask here first.
"""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

Key = tuple[int | str, ...]
EXTENDS = "extends"
"""Key of a file that states only what differs from others: their names."""
DEFAULT = Path(__file__).parents[3] / "config.yaml"
"""The experiment where no file is named. `extends: default` means it, wherever the file lies that says so."""
EXPERIMENTS = DEFAULT.parent / "experiments"
"""Those that come with the software; a file extends them by name."""
LARGEST = 1_000_000
"""Values that a file may hold, aliases counted as often as they are used: a few lines of them could fill the memory."""
STANDARD = "tag:yaml.org,2002:"
TEXT, MERGE, SWITCH, NOTHING = (STANDARD + name for name in ("str", "merge", "bool", "null"))
COLLECTIONS = (STANDARD + "map", STANDARD + "seq")
ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class ConfigurationError(ValueError):
    """The configuration cannot be run; each line names a file, a key, its value and what to write instead."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping of texts to values.

    Raises ConfigurationError for anything else, among it a file that is empty, not in UTF-8, or names a key twice.
    """
    loader, root = _composed(path)
    if root is None:
        raise ConfigurationError(f"{path}: is empty; write `key: value` lines, such as `{EXTENDS}: default`")
    if not isinstance(root, yaml.MappingNode):
        found = "a list" if isinstance(root, yaml.SequenceNode) else f"the text {shortened(root.value)}"
        raise ConfigurationError(f"{path}: holds {found}, not settings; write `key: value` lines")
    if faults := list(_Nodes(loader).faults(root, ())):
        raise ConfigurationError("\n".join(f"{path}: {fault}" for fault in faults))
    try:
        content: dict[str, Any] = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {_problem(error, path.read_text('utf-8-sig'))}") from None
    return content


def extended(paths: Sequence[Path], above: tuple[Path, ...] = ()) -> list[Path]:
    """The files, each after those that it names under `extends` (relative to itself), and each once.

    `default` among those names is the repository's config.yaml, which lies below all other files, and another name
    without a suffix is a file of its experiments/. Raises ConfigurationError for files that extend each other in a
    circle, or one that is not there.
    """
    found: list[Path] = []
    for path in paths:
        if path.resolve() in (one.resolve() for one in above):
            raise ConfigurationError(f"{path}: extends itself, by way of {' and '.join(map(str, above))}")
        found += extended(_bases(path), (*above, path))
        found.append(path)
    return sorted(dict.fromkeys(found), key=lambda path: path != DEFAULT)


def _bases(path: Path) -> list[Path]:
    """The files that a file extends, each of which is there."""
    named = read_yaml(path).get(EXTENDS, [])
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConfigurationError(f"{path}: {EXTENDS} = {named}: write the name of a file, or a list of names")
    bases = [_meant(name, path) for name in names]
    for name, base in zip(names, bases, strict=True):
        if not base.is_file():
            what = "a folder, not a file" if base.is_dir() else "no such file"
            near = difflib.get_close_matches(name, ["default", *_shipped()], n=1)
            hint = near_file(base) or (f" (did you mean {near[0]}?)" if near else "")
            raise ConfigurationError(
                f"{path}: {EXTENDS} = {name}: {what}{hint}; names are relative to the file that extends, `default` is "
                f"the default experiment, and {', '.join(_shipped())} are those of experiments/"
            )
    return bases


def _meant(name: str, path: Path) -> Path:
    """The file that `name` means under `extends` of the file `path`."""
    beside = path.parent / Path(name).expanduser()
    if name == "default":
        return DEFAULT
    return _shipped().get(name, beside) if not beside.exists() else beside


def _shipped() -> dict[str, Path]:
    """The experiments that come with the software, by the names that files extend them by."""
    return {one.stem: one for one in sorted(EXPERIMENTS.glob("*.yaml"))}


def near_file(path: Path) -> str:
    """` (did you mean x.yaml?)` if a file of a similar name lies in the same folder, else nothing."""
    names = [other.name for other in path.parent.glob("*") if other.suffix in (".yaml", ".yml", ".json")]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def spelled(path: Path, key: Key) -> str | None:
    """How the file writes the value of a key, such as `no` for what YAML reads as false; None if it is not there."""
    _, node = _composed(path)
    for step in key:
        if isinstance(node, yaml.MappingNode):
            node = next((value for name, value in node.value if name.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
        else:
            return None
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def shortened(text: str) -> str:
    """The text on one line, cut after 60 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}…"


def dotted(key: Key) -> str:
    """A key as messages write it: `grid[0].eps`."""
    text = ""
    for step in key:
        text += f"[{step}]" if isinstance(step, int) and not isinstance(step, bool) else f".{step}"
    return text.lstrip(".")


def _composed(path: Path) -> tuple[yaml.SafeLoader, yaml.Node | None]:
    """A loader and the root of the file's one document, None if the file is empty; values are not built yet."""
    text = _text(path)
    try:
        loader = yaml.SafeLoader(text)
        return loader, loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {_problem(error, text)}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: lists or mappings in it are nested too deeply to be read") from None


def _text(path: Path) -> str:
    """The file's text, with a byte order mark or without."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file{near_file(path)}") from None
    except IsADirectoryError:
        files = ", ".join(sorted(file.name for file in path.glob("*.y*ml"))[:5])
        raise ConfigurationError(
            f"{path}: a folder; name a file in it{f': {files}' if files else ', and it has no *.yaml'}"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    for mark, encoding in ENCODINGS.items():
        if content.startswith(mark):
            raise ConfigurationError(f"{path}: is written in {encoding}; save it as UTF-8")
    if b"\0" in content:
        raise ConfigurationError(f"{path}: holds zero bytes: no text, or text in UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path}: line {line} is not UTF-8 (byte {content[error.start]:#x}); save the file as UTF-8; from Latin-1: "
            f"iconv -f latin1 -t utf-8 {path.name}"
        ) from None


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    """Where a file stops to be YAML, and what to do about what stops most files."""
    problem, mark = str(error.problem), error.problem_mark
    line = mark.line + 1 if mark else 0
    stated = text.splitlines()[line - 1] if mark and line <= len(text.splitlines()) else ""
    if "single document" in str(error.context):
        return f"line {line} begins a second document (`---`); keep one, and write each experiment to a file of its own"
    where = f"line {line}, column {mark.column + 1}: {problem}" if mark else problem
    if "\t" in stated[: len(stated) - len(stated.lstrip())] or "'\\t'" in problem:
        return f"{where}; indent by spaces, not by tabs"
    if "alias" in problem:
        return f"{where}; a text that begins with * needs quotes"
    if "mapping values are not allowed" in problem:
        return f"{where}; a text with `: ` in it needs quotes, and keys of one mapping are indented alike"
    if problem.startswith("could not find expected ':'"):
        return f"{where}; write `key: value`, with a space after the colon"
    return where


class _Nodes:
    """Walks a document's nodes before values are built, since then keys that stand twice are gone."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._open: set[int] = set()
        self._sizes: dict[int, int] = {}

    def faults(self, node: yaml.Node, key: Key) -> Iterator[str]:
        """What is wrong at this node and below, a line each."""
        if id(node) in self._open:
            yield f"{dotted(key)}: an alias that holds itself (line {_line(node)}); write out what is meant"
            return
        if id(node) in self._sizes:
            return
        if not isinstance(node, yaml.ScalarNode) and node.tag not in COLLECTIONS:
            yield f"{dotted(key)}: {node.tag.replace(STANDARD, '!!')} in line {_line(node)} is not read; leave it out"
            return
        self._open.add(id(node))
        children: list[yaml.Node] = []
        if isinstance(node, yaml.ScalarNode):
            yield from self._unreadable(node, key)
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
            for i, child in enumerate(children):
                yield from self.faults(child, (*key, i))
        elif isinstance(node, yaml.MappingNode):
            children = [value for _, value in node.value]
            yield from self._names(node, key)
            for name, value in node.value:
                yield from self.faults(value, (*key, *([str(name.value)] if name.tag != MERGE else [])))
        self._open.discard(id(node))
        self._sizes[id(node)] = 1 + sum(self._sizes.get(id(child), 0) for child in children)
        if self._sizes[id(node)] > LARGEST and all(self._sizes.get(id(child), 0) <= LARGEST for child in children):
            yield f"{dotted(key)}: aliases make more than {LARGEST:,} values of this; write out what is meant"

    def _unreadable(self, node: yaml.ScalarNode, key: Key) -> Iterator[str]:
        try:
            self._loader.construct_object(node)
        except (ValueError, yaml.YAMLError) as error:
            why = error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error)
            yield f"{dotted(key)} = {shortened(node.value)}: {why}; where it is meant as a text, write it in quotes"

    def _names(self, node: yaml.MappingNode, key: Key) -> Iterator[str]:
        """Keys of a mapping that are no text, or that stand there twice."""
        lines: dict[str, int] = {}
        for name, _ in node.value:
            if name.tag == MERGE:
                continue
            if not isinstance(name, yaml.ScalarNode):
                yield (
                    f"{dotted(key) or 'the file'}: line {_line(name)}: a list or a mapping as a key; "
                    "braces and brackets that are meant as text need quotes"
                )
            elif name.tag != TEXT:
                read_as = {SWITCH: "a switch", NOTHING: "nothing"}.get(name.tag, "a number or a date")
                yield (
                    f"{dotted((*key, name.value))}: YAML reads the key {name.value} as {read_as}; "
                    f'write it in quotes: "{name.value}"'
                )
            elif name.value in lines:
                yield (
                    f"{dotted((*key, name.value))}: stands there twice, in lines {lines[name.value]} and "
                    f"{_line(name)}, and the second would replace the first; make one of them"
                )
            else:
                lines[name.value] = _line(name)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
