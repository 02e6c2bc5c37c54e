"""A plan as a table for people, or as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from robust_transfer.planning.plan import Plan, StagePlan, processor_hours
from robust_transfer.quantities import duration

_PREFIXES = (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15), ("E", 1e18), ("Z", 1e21))

Column = tuple[str, Callable[[StagePlan], str]]


def table(plan: Plan) -> str:
    """The plan as a table: one line per stage, the total, and the notes."""
    rows = [*plan.stages.values(), plan.total]
    columns = _columns(plan)
    cells = [[head for head, _ in columns], *([show(row) for _, show in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [_line(line, widths) for line in cells]
    rule = "-" * len(lines[0])
    head = f"{plan.experiment}: what {plan.store}/ lacks of it"
    return "\n".join([head, "", lines[0], rule, *lines[1:-1], rule, lines[-1], "", *_endings(plan)])


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values: numbers as they are, bytes, FLOPs, images, hours."""
    return {
        "experiment": plan.experiment,
        "store": str(plan.store),
        "currency": plan.currency,
        "cores": plan.cores,
        "stages": {name: _values(stage) for name, stage in plan.stages.items()},
        "total": _values(plan.total, processor=sum(map(processor_hours, plan.stages.values()))),
        "longest_chain_hours": plan.longest,
        "wall_hours": plan.wall,
        "notes": plan.notes,
    }


def _values(stage: StagePlan, processor: float | None = None) -> dict[str, Any]:
    work = stage.work
    return {
        "done": stage.done,
        "left": stage.left,
        "unknown": stage.unknown,
        "forward_images": work.of("forward", "heads"),
        "training_images": work.of("train"),
        "attack_images": work.of("attack"),
        "flops": work.flops,
        "bytes": round(work.written),
        "images_decoded": work.decoded,
        "processor_hours": processor_hours(stage) if processor is None else processor,
        "hours": {
            name: {"device": hours.device, "processor": hours.processor, "price": hours.price}
            for name, hours in stage.hours.items()
        },
        "cores_beside_gpu": stage.cores,
        "passes": [
            {**key._asdict(), "images": images} for key, images in sorted(work.images.items(), key=lambda item: item[0])
        ],
    }


def _columns(plan: Plan) -> list[Column]:
    columns: list[Column] = [
        ("stage", lambda stage: stage.stage),
        ("done", lambda stage: str(stage.done)),
        ("to do", lambda stage: f"{stage.left}{f' ({stage.unknown} ?)' if stage.unknown else ''}"),
        ("forward", lambda stage: _count(stage.work.of("forward", "heads"))),
        ("training", lambda stage: _count(stage.work.of("train"))),
        ("attack steps", lambda stage: _count(stage.work.of("attack"))),
        ("FLOPs", lambda stage: _count(stage.work.flops)),
        ("disk", lambda stage: _count(stage.work.written, "B")),
    ]
    if not plan.longest:
        total = sum(map(processor_hours, plan.stages.values()))
        columns.append(("core-h", lambda stage: _hours(total if stage.stage == "total" else processor_hours(stage))))
    for name in plan.longest:
        columns += _of_rates(plan, name)
    beside = next((name for name in plan.longest if name not in plan.wall), None)
    if beside:
        columns.append(("core-h", lambda stage: _hours(stage.hours[beside].processor)))
    return columns


def _of_rates(plan: Plan, name: str) -> list[Column]:
    local = name in plan.wall
    if local:
        return [(f"core-h, {name}", lambda stage: _hours(stage.hours[name].device + stage.hours[name].processor))]
    columns: list[Column] = [
        (f"{name} h", lambda stage: _hours(stage.hours[name].device)),
        ("cores", lambda stage: str(stage.cores.get(name, "-"))),
    ]
    if plan.total.hours[name].price is not None:
        columns.append((f"price, {plan.currency}", lambda stage: _price(stage.hours[name].price)))
    return columns


def _endings(plan: Plan) -> list[str]:
    lines = [
        "Images by what networks do with them: a forward pass, a training step (3 passes), a step of an attack (2).",
        "FLOPs count a multiply-add as two. Disk is what the store will grow by.",
    ]
    for name, hours in plan.wall.items():
        lines.append(
            f"On {name}, {plan.cores} job{'s' * (plan.cores > 1)} side by side: about {duration(3600 * hours)}."
        )
    for name, hours in plan.longest.items():
        if name not in plan.wall:
            lines.append(f"On any number of {name}: no less than {duration(3600 * hours)}, the longest chain of jobs.")
    if not plan.longest:
        lines.append("For hours: --gpu NAME by published rates, or --calibrate to measure this machine.")
    if plan.notes:
        lines += ["", *(f"- {note}" for note in plan.notes)]
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (cell.ljust(width) if i == 0 else cell.rjust(width)
                    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)))  # fmt: skip
    return "  ".join([first, *rest])


def _count(value: float, unit: str = "") -> str:
    """Three digits and a prefix; a dash for nothing."""
    if not value:
        return "-"
    prefix, size = next(pair for pair in reversed(_PREFIXES) if value >= pair[1] or pair[1] == 1)
    scaled = value / size
    digits = 0 if scaled >= 100 or size == 1 else 1 if scaled >= 10 else 2
    return f"{scaled:.{digits}f} {prefix}{unit}".rstrip()


def _hours(hours: float) -> str:
    if not hours:
        return "-"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 1 else f"{hours:.3f}"


def _price(price: float | None) -> str:
    return "-" if not price else f"{price:,.0f}" if price >= 100 else f"{price:.2f}"
