"""Shape annotations. jaxtyping checks them where it is installed (development, tests); elsewhere they have no effect.

The core must import where only torch, transformers, safetensors, numpy and pydantic are installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:

        class _Unchecked:
            def __class_getitem__(cls, item):  # noqa: ANN001, ANN204 - stands in for jaxtyping's own untyped hook
                return item[0]

        Bool = Float = Int = _Unchecked

__all__ = ["Bool", "Float", "Int"]
