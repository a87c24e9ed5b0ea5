"""What Excel shows of a number: its number format read as far as a person could take the number for another one."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from fractions import Fraction

#: A setting that is shown with so much of an error, relative to itself, is taken for another number.
ROUNDING = 0.05
# What belongs together in a format: quoted text, an escaped sign, a width, a filling sign, brackets, anything else.
_TOKEN = re.compile(r'"[^"]*"?|\\.|_.|\*.|\[[^\]]*\]?|E[+-]|e[+-]|General|.', re.DOTALL)
_COLOUR = re.compile(r"\[(?:black|blue|cyan|green|magenta|red|white|yellow|colou?r\s*\d+|\$-[\w,]+)\]", re.IGNORECASE)
_HARMLESS = frozenset(" +()\u00a0")
_DIGITS = frozenset("0#?")


@dataclass(frozen=True)
class Shown:
    """How a number looks: `value` as a person reads it (1 for 100 %), or `problem`, why it cannot be read."""

    value: float = 0.0
    is_percent: bool = False
    problem: str = ""


def shows_text(number_format: str) -> bool:
    """Whether a cell of this format shows its text: a fourth section without ``@`` hides or replaces it."""
    sections = _sections(number_format)
    return len(sections) < 4 or "@" in sections[3]


def shown(number: float, number_format: str) -> Shown:
    """The number as Excel shows it in a cell of this format (dates are judged elsewhere)."""
    if number_format in ("General", "@", ""):
        return Shown(number)
    sections = _sections(number_format)
    if any(re.match(r"\[[<>=]", token) for section in sections for token in section):
        return Shown(problem=f"has the number format {number_format!r}, which depends on conditions")
    if not math.isfinite(number):
        return Shown(number)
    numbers = sections[:3]
    index = 1 if number < 0 and len(numbers) > 1 else 2 if number == 0 and len(numbers) > 2 else 0
    section = [token for token in numbers[index] if not _COLOUR.fullmatch(token) and token[0] not in "_*"]
    if not section:
        return Shown(problem=f"is hidden by its number format {number_format!r}")
    if section in (["General"], ["@"]):
        return Shown(number)
    problem = _misleading(section, number, own_sign=index == 1)
    if problem:
        return Shown(problem=f"has the number format {number_format!r}, {problem}")
    if number == 0 or "General" in section:
        return Shown(number)
    percent = "%" in section
    value = _rounded(abs(number) * (100 if percent else 1), section)
    return Shown(math.copysign(value / (100 if percent else 1), number), percent)


def is_near(number: float, value: float) -> bool:
    """Whether what is shown of a setting lets a person know the setting."""
    return abs(number - value) <= ROUNDING * abs(number)


@functools.lru_cache(maxsize=256)
def _sections(number_format: str) -> list[list[str]]:
    sections: list[list[str]] = [[]]
    for token in _TOKEN.findall(number_format):
        if token == ";":
            sections.append([])
        else:
            sections[-1].append(token)
    return sections


def _misleading(section: list[str], number: float, own_sign: bool) -> str:
    """Why the section shows another number than the cell holds, or an empty text."""
    literals = [token.strip('"') if token[0] == '"' else token[1:] if token[0] == "\\" else "" for token in section]
    bare = "".join(token for token, text in zip(section, literals, strict=True) if not text and len(token) == 1)
    literal = "".join(literals)
    digits = any(token in _DIGITS for token in section) or "General" in section
    if number == 0 and not digits and "".join([*literals, bare]).strip(" -–—") == "":
        return ""  # accounting shows a dash for zero
    if not digits:
        return "which shows no digits of it"
    if section.count("%") > 1:
        return "which multiplies it more than once"
    if re.search(r"[0#?],+(?![0#?,])", bare):
        return "which shows it in thousands"
    sign = set("-(") & set(bare + literal)
    if number and (own_sign and not sign if number < 0 else sign):
        return "which changes its sign"
    brackets = [token for token in section if token[0] == "["]
    allowed = _DIGITS | _HARMLESS | set("-.,%/" + "123456789" * ("/" in bare))
    if set(literal) - _HARMLESS - {"-"} or set(bare) - allowed or brackets:
        return "which shows more than the number"
    return ""


def _rounded(value: float, section: list[str]) -> float:
    text = "".join(
        token for token in section if token in _DIGITS or token in ".,/" or token[0] in "Ee" or token.isdigit()
    )
    if "/" in text:
        denominator = text.split("/")[1]
        if denominator.isdigit() and int(denominator):
            parts = value * int(denominator)
            return round(parts) / int(denominator) if math.isfinite(parts) else value
        return float(Fraction(value).limit_denominator(10 ** max(1, len(denominator)) - 1))
    mantissa, exponent, _ = text.partition("E") if "E" in text else text.partition("e")
    decimals = len(mantissa.partition(".")[2].replace(",", ""))
    return float(f"{value:.{min(decimals, 30)}e}") if exponent else round(value, decimals)
