"""What margins and weights of distances must keep to; a recipe asks this without torch."""

from __future__ import annotations

import math


def require_margins(unchanged: float, changed: float, *, supervision: tuple[float, ...]) -> None:
    """Nothing, if a loss can be made of them.

    Args:
        unchanged: m1; `changed`: m2, of distances in [0, 2].
        supervision: λ of each distance.

    Raises:
        ValueError: negative or infinite numbers, m1 not below m2, or no λ.
    """
    if not all(math.isfinite(number) and number >= 0 for number in (unchanged, changed, *supervision)):
        raise ValueError(f"margins and λ must be finite and not negative, not {unchanged}, {changed} and {supervision}")
    if unchanged >= changed:
        raise ValueError(f"the margin of unchanged pairs, {unchanged}, must lie below that of changed pairs, {changed}")
    if len(supervision) not in (1, 3) or not any(supervision):
        raise ValueError(f"λ are three numbers or one, one of them positive, not {supervision}")
