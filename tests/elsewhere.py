"""`--device cuda` without a GPU: a device made of the processor, whose tensors mix with no others.

Run it with a list of commands, as JSON; each is a `wm` command, all of them in this one process. As
on a GPU, an operation on tensors of both sides fails, and so does reading one from there as an
array. It is the processor that computes, so the results are those of the processor.
"""

import json
import sys

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map

NAME = "elsewhere"
aten = torch.ops.aten
_MOVES = (aten._to_copy.default, aten.copy_.default)
_generator, _tensor = torch.Generator, torch.tensor


class Backend(backend_registration._DummyBackendModule):
    """What torch asks of a device before it lets autocast alone."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


class Elsewhere(torch.Tensor):
    """A tensor of that device; `raw` are its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return computed(operation, *args, **(kwargs or {}))

    def tolist(self):
        """Torch refuses it to every subclass; devices grant it."""
        return self.raw.tolist()


class Generator(_generator):
    """One of the processor, wherever it is wanted."""

    def __new__(cls, device=None):
        return super().__new__(cls)


def tensor(data, *, dtype=None, device=None):
    """`torch.tensor`, which asks no subclass, in two steps."""
    return _tensor(data, dtype=dtype).to(device or "cpu")


def computed(operation, *args, **kwargs):
    """What the operation gives, there if its tensors or its `device` are."""
    tensors = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, torch.Tensor)]
    away = [part for part in tensors if isinstance(part, Elsewhere)]
    here = [part for part in tensors if not isinstance(part, Elsewhere) and part.dim() > 0]
    if away and here and operation not in _MOVES:
        raise RuntimeError(f"{operation}: some tensors are on the processor, some are not.")
    device = kwargs.get("device")
    if device is not None:
        leaves = torch.device(device).type == NAME
    else:
        leaves = isinstance(args[0], Elsewhere) if operation is aten.copy_.default else bool(away)
    words, named = tree_map(_raw, (args, kwargs))
    found = _OWN.get(operation, operation)(*words, **named)
    same = {id(part.raw): part for part in away}  # what is changed in place stays what it is
    if not leaves:
        return found
    return tree_map(lambda part: _there(part, same), found)


def _there(part, same):
    if not isinstance(part, torch.Tensor):
        return part
    return same[id(part)] if id(part) in same else Elsewhere(part)


def _raw(part):
    if isinstance(part, torch.device):
        return torch.device("cpu")
    return part.raw if isinstance(part, Elsewhere) else part


def _lstm_cell(from_input, from_hidden, c, *biases):
    """The step of an LSTM that torch asks of devices in one: h, c and what its gradient needs."""
    gates = sum((bias for bias in biases if bias is not None), from_input + from_hidden)
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    after = f * c + i * g
    return o * after.tanh(), after, torch.cat([i, f, g, o], 1)


def _lstm_cell_gradient(of_h, of_c, c, after, kept, has_bias):
    i, f, g, o = kept.chunk(4, 1)
    seen = after.tanh()
    of_h = torch.zeros_like(c) if of_h is None else of_h
    of_c = (0 if of_c is None else of_c) + of_h * o * (1 - seen**2)
    parts = [of_c * g * i * (1 - i), of_c * c * f * (1 - f), of_c * i * (1 - g**2)]
    gates = torch.cat([*parts, of_h * seen * o * (1 - o)], 1)
    return gates, of_c * f, gates.sum(0) if has_bias else None


_OWN = {
    aten._thnn_fused_lstm_cell.default: _lstm_cell,
    aten._thnn_fused_lstm_cell_backward_impl.default: _lstm_cell_gradient,
}


def connect():
    """From now on there is such a device in this process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    library = torch.library.Library("_", "IMPL")
    library.fallback(computed, "PrivateUse1")
    torch.Generator, torch.tensor = Generator, tensor
    torch.inference_mode = torch.no_grad  # its tensors cannot be wrapped
    return library  # who drops it disconnects the device


def stand_in_for_cuda():
    """`--device cuda` means it."""
    from stages.artifacts import state
    from stages.artifacts.plain import one_of, optional
    from stages.training import device, session

    def resolved(name):
        return torch.device(NAME if name in {"cuda", NAME} else "cpu")

    device.resolve_device = session.resolve_device = resolved
    state._RECORDED["device"] = optional(one_of("cpu", NAME))


def main():
    """Run the commands; end with the first exit code that is not 0."""
    library = connect()
    stand_in_for_cuda()
    from wm_cli.app import run

    code = 0
    for words in json.loads(sys.argv[1]):
        code = code or run([*words, "--debug"])
    del library
    sys.exit(code)


if __name__ == "__main__":
    main()
