"""Strided layers of V for training: the sums of torch's own, with cheaper ways back.

A layer computes in the precision of its signal, whatever that of its weights: these stay float32
and get float32 gradients. Signals lie in memory with their channels last. Three costs of torch's
gradients on the CPU are left out (docs/experiments.md has the figures): the bias of a transposed
convolution, which alone doubles its pass back; the weights of a convolution of a small image, and
both gradients of the first transposed ones, which are single matrix products here.
Axes: `B` batch, `C O` channels in and out, `H W` rows and columns, `P` B * rows * columns of the
smaller image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

STRIDE = 2
LAST = torch.channels_last
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def convolve(signal: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution of stride 2 of [B, C, H, W] with [O, C, k, k]."""
    made: Tensor = _Convolution.apply(signal, weight, bias)  # type: ignore[no-untyped-call]
    return made


def convolve_small(signal: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as one matrix product of patches: for small images with many channels."""
    made: Tensor = _PatchConvolution.apply(signal, weight, bias)  # type: ignore[no-untyped-call]
    return made


def deconvolve(signal: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transposed convolution of stride 2 of [B, C, H, W] with [C, O, k, k]."""
    made: Tensor = _Deconvolution.apply(signal, weight, bias, False)  # type: ignore[no-untyped-call]
    return made


def deconvolve_small(signal: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same, its gradients by matrix products: for small images with many channels."""
    made: Tensor = _Deconvolution.apply(signal, weight, bias, True)  # type: ignore[no-untyped-call]
    return made


def dense_image(flat: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transposed convolution of a 1x1 image [B, C] with [C, O, k, k]: a matrix product."""
    product = flat @ weight.to(flat.dtype).flatten(1)  # [B, O * k * k]
    image = product.view(-1, *weight.shape[1:]) + bias.to(flat.dtype)[:, None, None]
    return image.contiguous(memory_format=LAST)  # [B, O, k, k]


def squared_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Summed squares per image, [B], of images [B, C, H, W] of the same precision."""
    made: Tensor = _SquaredError.apply(found, wanted)  # type: ignore[no-untyped-call]
    return made


class _Convolution(Function):
    """Torch's convolution; the weights' gradient from patches where the image is small."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        cast_weight = weight.to(signal.dtype)
        ctx.save_for_backward(signal, cast_weight)
        return functional.conv2d(signal, cast_weight, bias.to(signal.dtype), stride=STRIDE)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Gradients:
        signal, weight = ctx.saved_tensors
        gradient = upstream[0].contiguous(memory_format=LAST)  # [B, O, h, w]
        by_patches = len(weight) >= 128
        to_signal, to_weight = _torchs_gradients(
            gradient, signal, weight, transposed=False,
            wanted=(ctx.needs_input_grad[0], not by_patches),
        )  # fmt: skip
        if by_patches:
            patches = _patches(signal, weight.shape[-1], gradient.shape[2:])
            to_weight = _kernel(_rows(gradient).t() @ patches, weight)
        return to_signal, _master(to_weight), _bias_gradient(gradient)


class _PatchConvolution(Function):
    """Patches [P, k * k * C] times weights [k * k * C, O]."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        dtype, size = signal.dtype, weight.shape[-1]
        num_rows, num_columns = ((side - size) // STRIDE + 1 for side in signal.shape[2:])
        patches = _patches(signal, size, (num_rows, num_columns))
        matrix = weight.to(dtype).permute(0, 2, 3, 1).reshape(len(weight), -1)  # [O, k * k * C]
        ctx.save_for_backward(patches, matrix, weight)
        ctx.image = signal.shape
        product = torch.addmm(bias.to(dtype), patches, matrix.t())  # [P, O]
        return product.view(len(signal), num_rows, num_columns, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Gradients:
        patches, matrix, weight = ctx.saved_tensors
        gradient = upstream[0].contiguous(memory_format=LAST)
        rows = _rows(gradient)
        to_signal = _overlaid(rows @ matrix, ctx.image, weight.shape[-1], gradient.shape[2:])
        to_weight = _kernel(rows.t() @ patches, weight)
        return to_signal, _master(to_weight), _bias_gradient(gradient)


class _Deconvolution(Function):
    """Torch's transposed convolution; the bias, and small images, have gradients of their own."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, weight: Tensor, bias: Tensor, small: bool) -> Tensor:
        dtype = signal.dtype
        cast_weight = weight.to(dtype)
        ctx.save_for_backward(signal, cast_weight)
        ctx.small = small
        image = functional.conv_transpose2d(signal, cast_weight, bias.to(dtype), stride=STRIDE)
        return image.contiguous(memory_format=LAST)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        signal, weight = ctx.saved_tensors
        gradient = upstream[0].contiguous(memory_format=LAST)  # [B, O, H, W]
        to_bias = _bias_gradient(gradient)
        if not ctx.small:
            to_signal, to_weight = _torchs_gradients(
                gradient, signal, weight, transposed=True, wanted=(True, True)
            )
            return to_signal, _master(to_weight), to_bias, None
        patches = _patches(gradient, weight.shape[-1], signal.shape[2:])  # [P, k * k * O]
        matrix = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)  # [C, k * k * O]
        to_signal = (patches @ matrix.t()).view(_last(signal)).permute(0, 3, 1, 2)
        to_weight = _kernel(_rows(signal).t() @ patches, weight)
        return to_signal, _master(to_weight), to_bias, None


class _SquaredError(Function):
    """Three passes over the images instead of seven."""

    @staticmethod
    def forward(ctx: Any, found: Tensor, wanted: Tensor) -> Tensor:
        difference = found - wanted
        ctx.save_for_backward(difference)
        flat = difference.permute(0, 2, 3, 1).flatten(1)  # a view where channels are last
        squares: Tensor = torch.linalg.vecdot(flat, flat)
        return squares

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference * (2 * upstream[0])[:, None, None, None], None


def _torchs_gradients(
    gradient: Tensor,
    signal: Tensor,
    weight: Tensor,
    *,
    transposed: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of signal and weight by torch's own kernels, without that of the bias."""
    to_signal: Tensor | None
    to_weight: Tensor | None
    to_signal, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient, signal, weight, None, [STRIDE, STRIDE], [0, 0], [1, 1], transposed, [0, 0], 1,
        [*wanted, False],
    )  # fmt: skip
    return to_signal, to_weight


def _last(image: Tensor) -> tuple[int, int, int, int]:
    """Shape of an image [B, C, H, W] with its channels last."""
    num_images, channels, rows, columns = image.shape
    return num_images, rows, columns, channels


def _rows(image: Tensor) -> Tensor:
    """Pixels [B * H * W, C] of an image with channels last in memory; a view."""
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])


def _patches(image: Tensor, size: int, places: Sequence[int]) -> Tensor:
    """Every patch [P, size * size * C] that a kernel sees, in the order row, column, channel."""
    image = image.contiguous(memory_format=LAST)
    num_images, height, width, channels = _last(image)
    num_rows, num_columns = places
    line = width * channels
    shape = (num_images, num_rows, num_columns, size, size * channels)
    strides = (height * line, STRIDE * line, STRIDE * channels, line, 1)
    return image.as_strided(shape, strides, image.storage_offset()).reshape(
        num_images * num_rows * num_columns, size * size * channels
    )


def _overlaid(patches: Tensor, image: torch.Size, size: int, places: Sequence[int]) -> Tensor:
    """The sum of patches laid where they were taken from, [B, C, H, W]; `size` is even.

    A patch is cut into squares of two rows and columns, which tile the image at every offset.
    """
    num_images, channels, height, width = image
    num_rows, num_columns = places
    half = size // STRIDE
    squares = patches.view(num_images, num_rows, num_columns, half, STRIDE, half, STRIDE * channels)
    total = patches.new_zeros(num_images, height, width, channels)
    line = width * channels
    shape = (num_images, num_rows, STRIDE, num_columns, STRIDE * channels)
    strides = (height * line, STRIDE * line, line, STRIDE * channels, 1)
    for row in range(half):
        for column in range(half):
            offset = STRIDE * (row * line + column * channels)
            target = total.as_strided(shape, strides, offset)
            target.add_(squares[:, :, :, row, :, column].transpose(2, 3))
    return total.permute(0, 3, 1, 2)


def _kernel(matrix: Tensor, weight: Tensor) -> Tensor:
    """A gradient [N, k * k * M] in the order of the weight [N, M, k, k]."""
    first, second, *size = weight.shape
    return matrix.view(first, *size, second).permute(0, 3, 1, 2)


def _bias_gradient(gradient: Tensor) -> Tensor:
    return _rows(gradient).sum(0).float()  # summed in float32 in any case


def _master(gradient: Tensor | None) -> Tensor | None:
    """The gradient as the float32 weights take it."""
    return None if gradient is None else gradient.float().contiguous()
