"""An LSTM layer with one bias per gate and a constant added to the forget gate.

torch's own layer has two biases per gate. Here the second one is not a parameter: it holds the
constant 1.0 of the forget gate (Ha & Schmidhuber's code) and is neither trained nor saved.
Gates in torch's order: input, forget, cell, output. Axes: `B` lanes, `T` time, `H` units.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

State = tuple[Tensor, Tensor]  # h [B, H], c [B, H]

FORGET_OFFSET = 1.0  # added to the forget gate before its sigmoid
MIN_ROWS = 16  # from this batch size on, a row does not depend on the other rows, bit for bit


class LSTM(nn.Module):
    """One layer: `weight_ih` [4H, I], `weight_hh` [4H, H], `bias` [4H]."""

    def __init__(self, num_inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.zeros(4 * hidden_size, num_inputs))
        self.weight_hh = nn.Parameter(torch.zeros(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        offset = torch.zeros(4 * hidden_size)
        offset[hidden_size : 2 * hidden_size] = FORGET_OFFSET
        self.offset: Tensor
        self.register_buffer("offset", offset, persistent=False)

    def step(self, inputs: Tensor, state: State) -> State:
        """One step [B, I]; twice as fast as the fused layer for 16-64 lanes on one CPU core."""
        num_rows = len(inputs)
        if num_rows < MIN_ROWS:
            inputs, state = _padded(inputs), (_padded(state[0]), _padded(state[1]))
        h, c = state
        gates = functional.linear(inputs, self.weight_ih, self.bias + self.offset)  # [B, 4H]
        gates = torch.addmm(gates, h, self.weight_hh.t())
        take, keep, new, show = gates.chunk(4, dim=1)
        c = torch.sigmoid(keep) * c + torch.sigmoid(take) * torch.tanh(new)
        h = torch.sigmoid(show) * torch.tanh(c)
        return h[:num_rows], c[:num_rows]

    def sequence(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """T steps [B, T, I] by torch's fused kernel: h [B, T, H] after each, and the last state.

        Computes in the precision of the inputs, whatever that of the weights; h is of it too.
        Autocast changes nothing: its bfloat16 kernel is missing where the processor has none.
        """
        dtype = inputs.dtype
        weight_ih: Tensor = self.weight_ih
        if dtype != weight_ih.dtype and inputs.shape[-1] % 2:
            # oneDNN's kernels for matrix units want pairs: the pass is five times slower without.
            inputs, weight_ih = functional.pad(inputs, (0, 1)), functional.pad(weight_ih, (0, 1))
        weights = [w.to(dtype) for w in (weight_ih, self.weight_hh, self.bias, self.offset)]
        start = [part.to(dtype).unsqueeze(0).contiguous() for part in state]
        # Filters belong to the whole process: on the CPU, parts of a batch run in many threads.
        silent = _no_word_of_copies() if inputs.is_cuda else nullcontext()
        with torch.autocast(inputs.device.type, enabled=False), silent:
            hidden, h, c = torch.lstm(
                inputs, start, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True
            )
        return hidden, (h.squeeze(0).float(), c.squeeze(0).float())


@contextmanager
def _no_word_of_copies() -> Iterator[None]:
    """CuDNN wants the weights in one buffer and copies them there: about 1 MB per call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single")
        yield


def _padded(rows: Tensor) -> Tensor:
    return functional.pad(rows, (0, 0, 0, MIN_ROWS - len(rows)))
