"""Figures: what was measured, and the bound it has to keep."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    unit: str
    bound: str
    kept: bool
    note: str = ""


def at_least(name: str, value: float, bound: float, unit: str = "×", note: str = "") -> Figure:
    return Figure(name, value, unit, f"≥ {bound:g} {unit}", value >= bound, note)


def at_most(name: str, value: float, bound: float, unit: str, note: str = "") -> Figure:
    return Figure(name, value, unit, f"≤ {bound:g} {unit}", value <= bound, note)
