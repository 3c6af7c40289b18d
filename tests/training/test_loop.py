"""fit(): Adam against a numpy loop, resume against the uninterrupted run, bad numbers."""

import numpy as np
import pytest
import torch
from training_samples import in_one_part

from stages.artifacts.weights import pack_tensors, unpack_tensors
from stages.errors import ArtifactDamaged, Interrupted, NumbersBad
from stages.events import Advanced, Silent
from stages.training.device import torch_generator
from stages.training.loop import Plan, TrainingState, check_errors, fit
from stages.training.parts import Part

CPU = torch.device("cpu")
PLAN = Plan("vision", seed=3, num_steps=37, learning_rate=0.01, log_every=5)


class StopsAt(Silent):
    """Stops once `num_steps` steps are done."""

    def __init__(self, num_steps):
        self.num_steps = num_steps
        self.done = 0

    def emit(self, event):
        self.done = event.done

    def poll(self):
        if self.done == self.num_steps:
            raise Interrupted("stopped")


def make_model(seed=0):
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=source)
    return model


def make_loss(model):
    """Noisy regression: inputs and noise are functions of the step."""

    def loss(step):
        inputs = torch.randn(16, 5, generator=torch_generator(0, "data", step, device=CPU))
        noise = torch.randn(16, 2, generator=torch_generator(0, "noise", step, device=CPU))
        error = model(inputs) - inputs[:, :2] * inputs[:, 2:4] + 0.1 * noise
        square = (error**2).mean()
        weight = sum((p**2).sum() for p in model.parameters())
        return {"loss": square + 1e-3 * weight, "square": square, "weight": weight}

    return loss


def ignore(_):
    pass


def run(plan=PLAN, *, state=None, seed=0, save=ignore, log=ignore, monitor=None, **kwargs):
    model = make_model(seed)
    monitor = monitor or Silent()
    loss = in_one_part(make_loss(model))
    return fit(model, loss, plan, save=save, log=log, monitor=monitor, state=state, **kwargs)


def through_a_file(state):
    tensors, metadata = unpack_tensors(pack_tensors(state.tensors, {"step": str(state.step)}))
    return TrainingState(int(metadata["step"]), tensors)


def assert_equal(one, other):
    assert one.step == other.step
    assert one.tensors.keys() == other.tensors.keys()
    for name, array in one.tensors.items():
        assert array.tobytes() == other.tensors[name].tobytes(), name


def numpy_adam(model, loss, plan):
    """Kingma & Ba 2015, algorithm 1, one element after the other in float64."""
    parameters = list(model.parameters())
    mean = [np.zeros(p.shape) for p in parameters]
    square = [np.zeros(p.shape) for p in parameters]
    for step in range(plan.num_steps):
        gradients = torch.autograd.grad(loss(step)["loss"], parameters)
        rate = plan.min_rate + (plan.learning_rate - plan.min_rate) * plan.rate_decay**step
        for k, parameter in enumerate(parameters):
            with torch.no_grad():
                for place in np.ndindex(*parameter.shape):
                    g = float(gradients[k][place])
                    if plan.clip:
                        g = min(max(g, -plan.clip), plan.clip)
                    mean[k][place] = 0.9 * mean[k][place] + 0.1 * g
                    square[k][place] = 0.999 * square[k][place] + 0.001 * g * g
                    unbiased = mean[k][place] / (1 - 0.9 ** (step + 1))
                    scale = np.sqrt(square[k][place] / (1 - 0.999 ** (step + 1))) + 1e-8
                    parameter[place] -= rate * unbiased / scale
    return dict(zip(dict(model.named_parameters()), parameters, strict=True))


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_adam_with_schedule_and_clip_equals_a_plain_loop(clip):
    plan = Plan(
        "memory",
        seed=0,
        num_steps=4,
        learning_rate=0.05,
        rate_decay=0.8,
        min_rate=0.01,
        clip=clip,
    )
    model = make_model()
    expected = numpy_adam(model, make_loss(model), plan)
    found = run(plan).weights()
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name].detach().numpy(), atol=2e-6)


def test_it_learns_and_reports_every_step():
    events, lines = [], []
    monitor = Silent()
    monitor.emit = events.append
    state = run(Plan("vision", 3, 300, 0.02, log_every=50), log=lines.append, monitor=monitor)
    assert state.step == 300
    assert [line["step"] for line in lines] == [50, 100, 150, 200, 250, 300]
    assert lines[-1]["square"] < 0.5 * lines[0]["square"]
    assert [(e.done, e.total, e.unit) for e in events] == [(k, 300, "steps") for k in range(1, 301)]
    assert isinstance(events[0], Advanced)


def test_metrics_are_means_over_the_interval():
    model, lines, losses = make_model(), [], []
    loss = make_loss(model)

    def noted(step):
        found = loss(step)
        losses.append(found["loss"].item())
        return found

    plan = Plan("vision", 3, 12, 0.01, log_every=4)
    fit(model, in_one_part(noted), plan, save=ignore, log=lines.append, monitor=Silent())
    for number, line in enumerate(lines):
        expected = np.mean(losses[4 * number : 4 * number + 4])
        assert line["loss"] == pytest.approx(expected, rel=1e-12)
    assert len(lines) == 3


def test_interrupted_after_any_step_and_resumed_equals_uninterrupted():
    """Bit for bit, through the file format, its metrics included."""
    lines = []
    whole = run(log=lines.append)
    random = np.random.default_rng()
    for num_steps in [1, 5, 36, *random.integers(1, 37, size=5).tolist()]:
        saved, resumed = [], []
        with pytest.raises(Interrupted):
            run(save=saved.append, log=resumed.append, monitor=StopsAt(num_steps))
        assert [state.step for state in saved] == [num_steps]
        # other initial weights show that nothing but the checkpoint counts
        state = through_a_file(saved[0])
        assert_equal(run(state=state, seed=99, log=resumed.append), whole)
        assert resumed == lines, f"stopped after {num_steps}"
        assert [list(line) for line in resumed] == [list(line) for line in lines], "its order too"


def in_two_parts(model):
    """The regression of `make_loss`, its rows computed by two threads."""

    def loss(step):
        inputs = torch.randn(32, 5, generator=torch_generator(0, "data", step, device=CPU))

        def part(rows):
            def compute():
                error = model(inputs[rows]) - inputs[rows, :2]
                return {"loss": (error**2).mean()}

            return Part(0.5, compute)

        return [part(slice(0, 16)), part(slice(16, 32))]

    return loss


def test_two_parts_resumed_equal_two_parts_uninterrupted():
    def trained(seed, **kwargs):
        model = make_model(seed)
        return fit(model, in_two_parts(model), PLAN, log=ignore, **kwargs)

    whole = trained(0, save=ignore, monitor=Silent())
    for num_steps in (1, 20):
        saved = []
        with pytest.raises(Interrupted):
            trained(0, save=saved.append, monitor=StopsAt(num_steps))
        state = through_a_file(saved[-1])
        assert_equal(trained(9, save=ignore, monitor=Silent(), state=state), whole)


def test_a_bad_loss_of_one_part_stops_the_step():
    model = make_model()
    loss = in_two_parts(model)

    def spoiled(step):
        good, _ = loss(step)
        return [good, Part(0.5, lambda: {"loss": model(torch.ones(1, 5)).sum() * float("nan")})]

    with pytest.raises(NumbersBad, match="vision step 0"):
        fit(model, spoiled, PLAN, save=ignore, log=ignore, monitor=Silent())


def test_a_gradient_that_lies_transposed_in_memory_is_used_as_it_is_meant():
    """Fused Adam reads memory in order; autograd's gradients need not lie in that order."""
    weights = []
    for transposed in (False, True):
        model = torch.nn.Linear(3, 4, bias=False)
        torch.nn.init.ones_(model.weight)
        # Signs that differ by place: Adam's first steps follow the sign alone.
        target = torch.tensor([[1.0, -2, 3], [4, 5, -6], [-7, 8, 9], [10, -11, -12]])
        target = target.t().contiguous().t() if transposed else target
        fit(
            model,
            in_one_part(lambda _, m=model, t=target: {"loss": (m.weight * t).sum()}),
            Plan("vision", 0, 3, 0.1, clip=5.0),
            save=ignore,
            log=ignore,
            monitor=Silent(),
        )
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)


def test_killed_between_checkpoints_and_resumed_from_the_last_equals_uninterrupted():
    saved, lines, ticks = [], [], iter(range(10_000))
    plan = Plan("vision", 3, 37, 0.01, log_every=5, checkpoint_seconds=4)
    whole = run(plan, save=saved.append, log=lines.append, clock=lambda: next(ticks))
    assert len(saved) > 5
    assert saved[-1].step == 37
    for state in saved:
        again = [line for line in lines if line["step"] <= state.step]
        assert_equal(run(plan, state=through_a_file(state), seed=7, log=again.append), whole)
        assert again == lines


def test_the_clock_decides_when_but_not_what():
    fast, slow = [], []
    ticks = iter(range(0, 10**6, 100))
    whole = run(save=fast.append, clock=lambda: next(ticks))
    assert_equal(run(save=slow.append, clock=lambda: 0.0), whole)
    assert [state.step for state in fast] == list(range(1, 38))
    assert [state.step for state in slow] == [37]


def test_a_finished_state_needs_no_more_steps():
    whole = run()
    saved = []
    assert_equal(run(state=whole, seed=5, save=saved.append), whole)
    assert saved == []


def test_a_checkpoint_does_not_change_while_training_goes_on():
    saved = []
    ticks = iter(range(0, 10**6, 100))
    run(save=lambda s: saved.append((s, s.weights()["0.weight"].copy())), clock=lambda: next(ticks))
    assert all(np.array_equal(state.weights()["0.weight"], copy) for state, copy in saved)
    assert not np.array_equal(saved[0][1], saved[-1][1])


def test_frozen_parameters_stay_and_are_kept():
    def frozen():
        model = make_model()
        model[0].bias.requires_grad_(False)
        return model

    model = frozen()
    before = model[0].bias.detach().clone().numpy()
    state = fit(
        model, in_one_part(make_loss(model)), PLAN, save=ignore, log=ignore, monitor=Silent()
    )
    assert np.array_equal(state.weights()["0.bias"], before)
    assert not any("0.bias" in name for name in state.tensors if name.startswith("adam"))
    again = frozen()
    half = TrainingState(state.step, through_a_file(state).tensors)
    assert_equal(
        fit(
            again,
            in_one_part(make_loss(again)),
            PLAN,
            save=ignore,
            log=ignore,
            monitor=Silent(),
            state=half,
        ),
        state,
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_bad_loss_stops_and_keeps_the_last_good_state(bad):
    model, saved = make_model(), []
    loss = make_loss(model)

    def spoiled(step):
        found = dict(loss(step))
        if step == 7:
            found["loss"] = found["loss"] * bad
        return found

    ticks = iter(range(0, 10**6))
    plan = Plan("vision", 3, 37, 0.01, checkpoint_seconds=3)
    with pytest.raises(NumbersBad) as caught:
        fit(
            model,
            in_one_part(spoiled),
            plan,
            save=saved.append,
            log=ignore,
            monitor=Silent(),
            clock=lambda: next(ticks),
        )
    text = str(caught.value)
    assert "vision step 7" in text
    assert "seed 3" in text
    assert f"step {saved[-1].step}." in text
    assert "--set vision.learning_rate=0.001" in text
    assert 0 < saved[-1].step <= 7
    assert all(np.isfinite(array).all() for array in saved[-1].tensors.values())


def test_a_bad_gradient_of_a_good_loss_stops_before_the_step():
    model = make_model()

    def loss(step):
        weight = model[0].weight
        rest = sum((p**2).sum() for p in model.parameters())
        return {"loss": torch.sqrt((weight * 0).sum()) + rest}  # d sqrt(x) / dx at 0 is infinite

    saved = []
    with pytest.raises(NumbersBad, match="gradient"):
        fit(model, in_one_part(loss), PLAN, save=saved.append, log=ignore, monitor=Silent())
    assert saved == []
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_an_absurd_learning_rate_never_saves_a_bad_state():
    saved = []
    with pytest.raises(NumbersBad):
        plan = Plan("vision", 3, 37, 1e30, checkpoint_seconds=0.0)
        run(plan, save=saved.append)
    assert all(np.isfinite(a).all() for state in saved for a in state.tensors.values())


def test_before_the_first_step_it_is_not_the_rate_that_is_to_blame():
    with pytest.raises(NumbersBad) as caught:
        fit(
            model := make_model(),
            in_one_part(lambda _: {"loss": model[0].weight.sum() * float("nan")}),
            PLAN,
            save=ignore,
            log=ignore,
            monitor=Silent(),
        )
    assert "vision step 0 is nan" in caught.value.what
    assert "the initial one" in caught.value.why
    assert "learning_rate" not in caught.value.fix


def test_weights_that_went_bad_are_named_and_not_saved():
    model, saved = make_model(), []

    def loss(step):
        """Its gradient never sees the weight that goes bad in the last step."""
        if step == 4:
            with torch.no_grad():
                model[0].weight[1, 2] = float("inf")
        seen = (model[0].weight[0], model[0].bias, model[2].weight, model[2].bias)
        return {"loss": sum((part**2).sum() for part in seen)}

    plan = Plan("memory", 3, 5, 0.01)
    with pytest.raises(NumbersBad, match=r"array model/0\.weight after memory step 5 is inf"):
        fit(model, in_one_part(loss), plan, save=saved.append, log=ignore, monitor=Silent())
    assert saved == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_errors_that_are_no_numbers_are_named(bad):
    check_errors({"nll": 1.0, "kl": -3.5}, section="memory", step=7)
    with pytest.raises(NumbersBad, match=f"kl on held-out episodes is {bad} after memory step 7"):
        check_errors({"nll": 1.0, "kl": bad}, section="memory", step=7)


def test_a_state_of_another_model_is_refused():
    state = run()
    tensors = {name: array for name, array in state.tensors.items() if "2.bias" not in name}
    with pytest.raises(ArtifactDamaged, match="missing"):
        run(state=TrainingState(3, tensors))
