"""How numbers are printed: one rounding everywhere, so that no two places differ in the last digit.

Python rounds the binary number that is stored: 96.75 is printed 96.8, and 68.75 as well, but 0.6875
times 100 may be a little less. So a number is first rounded to six digits, as the records are, and
then half up.
"""

from decimal import ROUND_HALF_UP, Decimal


def fixed(value: float, digits: int = 1) -> str:
    """A number with a fixed number of decimals, such as ``68.8``; ``nan`` for a missing one."""
    number = Decimal(f"{value:.6g}")
    if not number.is_finite():
        return str(value)
    rounded = number.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return str(abs(rounded) if rounded == 0 else rounded)


def percent(share: float, digits: int = 1) -> str:
    """A share in per cent, without the sign: 0.6875 is ``68.8``."""
    return fixed(100 * share, digits)


def signed(share: float) -> str:
    """A difference of shares in percentage points, with its sign: ``+1.3`` or ``−0.4``."""
    text = percent(share)
    return text.replace("-", "−") if share < 0 and text != "0.0" else f"+{text.lstrip('-')}"
