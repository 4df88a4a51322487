"""Sixteen uint32 that go through the processor together.

Numba leaves vectors to LLVM, which adds sums across a vector at the end of every inner loop. Where inner loops have 16
steps that is as much work as the loop itself, so a value of this type can be kept from one to the next.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

N_LANES = 16
_WORD = ir.IntType(32)
_VECTOR = ir.VectorType(_WORD, N_LANES)


def _call(builder, name, result, args):
    """A call of LLVM's own function of vectors."""
    kind = ir.FunctionType(result, [_VECTOR] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{N_LANES}i32"), args)


class LanesType(types.Type):
    """Numba's type of it."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = LanesType()


@register_model(LanesType)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, _VECTOR)


@intrinsic
def zeros(typing):
    """All lanes 0."""
    return lanes(), lambda _, builder, signature, args: ir.Constant(_VECTOR, None)


@intrinsic
def load(typing, array, first):
    """The elements `first` to `first` + 15 of a contiguous array of uint32, wherever it begins."""

    def code(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), _VECTOR.as_pointer())
        return builder.load(place, align=4)

    return lanes(array, types.int64), code


@intrinsic
def add_set_bits(typing, total, low, high, by, mask):
    """total + the number of bits, lane by lane, of the 32 from bit `by` (uint32, < 32) on of high:low, within mask."""

    def code(context, builder, signature, args):
        total, low, high, by, mask = args
        shift = builder.shuffle_vector(
            builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), by, ir.Constant(_WORD, 0)),
            ir.Constant(_VECTOR, ir.Undefined),
            ir.Constant(_VECTOR, None),
        )
        found = builder.and_(_call(builder, "fshr", _VECTOR, [high, low, shift]), mask)
        return builder.add(total, _call(builder, "ctpop", _VECTOR, [found]))

    return lanes(lanes, lanes, lanes, types.uint32, lanes), code


@intrinsic
def total_of(typing, values):
    """Sum over the lanes, uint32."""

    return types.uint32(lanes), lambda _, builder, __, args: _call(builder, "vector.reduce.add", _WORD, args)
