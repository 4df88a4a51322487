"""Properties that hold for whatever hypothesis can think of: a decorator that says how many examples were tried."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from scale import cases

EXAMPLES = cases(100, 1000)


def holds(**strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn ``f(**drawn, **fixtures)`` into a test that tries `EXAMPLES` draws, the same in every run.

    Fixtures are shared by the examples of a test.
    """

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        wanted = inspect.signature(check).parameters.values()
        fixtures = [p.name for p in wanted if p.name not in strategies and p.kind is not p.VAR_KEYWORD]

        def test(counted: Callable[[str, int], None], **given_fixtures: Any) -> None:
            tried = 0

            def one(**drawn: Any) -> None:
                nonlocal tried
                tried += 1
                check(**drawn, **given_fixtures)

            # The name and the place of the check are what hypothesis derives its examples from.
            one.__qualname__, one.__name__, one.__module__ = check.__qualname__, check.__name__, check.__module__
            settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            )(given(**strategies)(one))()
            counted("examples of properties", tried)

        names = ["counted", *fixtures]
        test.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        )
        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return decorate
