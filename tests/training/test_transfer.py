"""Transfer: what matches is taken over whole, what is frozen stays, what was loaded learns at its own rate."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetRegressor
from torch import nn, optim

from skpt.exceptions import InvalidInputError
from skpt.modules import MLPModule
from skpt.training.files import join_learnt, read_tensors, split_learnt, write_tensors
from skpt.training.transfer import (
    Frozen,
    TransferReport,
    find_frozen,
    follow_rates,
    read_pretrained,
    scale_loaded_rates,
    transfer_weights,
)


def network(n_features=4, n_outputs=2, sizes=(6, 5), seed=0, **kwargs):
    return MLPModule(
        n_features, n_outputs, sizes, batch_norm=True, generator=torch.Generator().manual_seed(seed), **kwargs
    )


def copied(module):
    return {name: t.clone() for name, t in module.state_dict().items()}


def names(notes):
    return [each.name for each in notes]


class Container(nn.Module):
    """A module with a weight of its own beside one below it, as a transformer's class token."""

    def __init__(self, n_tokens, bias=True):
        super().__init__()
        self.token = nn.Parameter(torch.randn(n_tokens, 3))
        self.start = nn.Parameter(torch.randn(3))
        self.layer = nn.Linear(3, 3, bias)


class Compiled(nn.Module):
    """What torch.compile makes of a module, without its compiler, which takes seconds to import."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module


class TestTransfer:
    def test_a_network_of_the_same_shape_becomes_the_same(self):
        module, other = network(), network(seed=1)
        report = transfer_weights(module, other.state_dict(), "other")
        assert names(report.loaded) == list(module.state_dict()) and not report.new and not report.unused
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
            assert tensor.data_ptr() != other.state_dict()[name].data_ptr(), "copied, not shared"

    @pytest.mark.parametrize(
        ("changed", "new"),
        [
            ({"n_features": 7}, {"hidden_1"}),
            ({"n_outputs": 3}, {"output"}),
            ({"sizes": (6, 9)}, {"hidden_2", "batch_norm_2", "output"}),
            ({"sizes": (6,)}, {"output"}),
            ({"sizes": (6, 5, 4)}, {"hidden_3", "batch_norm_3", "output"}),
        ],
        ids=str,
    )
    def test_what_differs_in_shape_stays_new_and_the_rest_is_taken(self, changed, new):
        module, other = network(**changed), network(seed=1)
        before = copied(module)
        report = transfer_weights(module, other.state_dict(), "other")
        assert {name.rpartition(".")[0] for name in names(report.new)} == new
        for name, tensor in module.state_dict().items():
            expected = before[name] if name.rpartition(".")[0] in new else other.state_dict()[name]
            assert torch.equal(tensor, expected), name
        assert set(names(report.loaded)) | set(names(report.new)) == set(before)
        assert set(names(report.unused)) == set(other.state_dict()) - set(names(report.loaded))

    def test_a_layer_is_taken_whole_or_not_at_all(self):
        """The bias of the first layer would fit; without its weights it means nothing."""
        module, other = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2, False))
        with pytest.raises(InvalidInputError):
            transfer_weights(module, other.state_dict(), "other")
        report = transfer_weights(module, {**other.state_dict(), "1.bias": torch.ones(2)}, "other")
        assert names(report.loaded) == ["1.weight", "1.bias"]
        assert {each.name: each.reason for each in report.new} == {
            "0.weight": "(3, 5) there",
            "0.bias": "what belongs to it does not fit",
        }

    def test_weights_beside_other_layers_are_taken_one_by_one(self):
        module, other = Container(5), Container(7)
        report = transfer_weights(module, other.state_dict(), "other")
        assert names(report.new) == ["token"] and set(names(report.loaded)) == {"start", "layer.weight", "layer.bias"}

    def test_layers_that_belong_together_are_taken_all_or_none(self):
        module, other = network(n_outputs=3), network()
        report = transfer_weights(module, other.state_dict(), "other", together=["output.weight", "hidden_2.weight", "no.such"])
        assert {name.rpartition(".")[0] for name in names(report.new)} == {"output", "hidden_2"}

    def test_layers_can_be_refused(self):
        module, other = network(), network(seed=1)
        before = copied(module)
        report = transfer_weights(module, other.state_dict(), "other", refused={"output.weight": "its classes are others"})
        assert {each.reason for each in report.new} == {"its classes are others"} == {each.reason for each in report.unused}
        assert torch.equal(module.output.weight, before["output.weight"])

    def test_nothing_in_common_is_an_error_that_names_both_sides(self):
        module, other = network(sizes=(6,)), nn.Sequential(nn.Linear(4, 3))
        before = copied(module)
        with pytest.raises(InvalidInputError, match=r"(?s)Nothing of a file fits.*new +hidden_1.weight.*unused +0.weight"):
            transfer_weights(module, other.state_dict(), "a file")
        assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())

    def test_a_long_error_is_cut(self):
        module, other = network(sizes=(6,) * 20), nn.Sequential(nn.Linear(4, 3))
        with pytest.raises(InvalidInputError) as error:
            transfer_weights(module, other.state_dict(), "other")
        assert len(str(error.value).splitlines()) < 15 and "more" in str(error.value)

    def test_numbers_of_another_precision_are_converted(self):
        module, other = network(), network(seed=1).double()
        transfer_weights(module, other.state_dict(), "other")
        assert module.output.weight.dtype == torch.float32
        assert torch.equal(module.output.weight, other.output.weight.float())

    def test_compiled_networks_have_the_same_names(self):
        module, other = network(), network(seed=1)
        report = transfer_weights(Compiled(module), Compiled(other).state_dict(), "other")
        assert names(report.loaded) == list(module.state_dict())
        assert torch.equal(module.output.weight, other.output.weight)

    def test_the_report_prints_each_tensor_with_its_shape(self):
        report = transfer_weights(network(n_outputs=3), network(sizes=(6, 5, 2)).state_dict(), "MLPRegressor")
        report.notes.append("a note")
        lines = str(report).splitlines()
        assert lines[0] == "12 of 14 tensors taken over from MLPRegressor"
        assert "  loaded  hidden_1.weight                   (6, 4)" in lines
        assert "  new     output.weight                     (3, 5)  (2, 2) there" in lines
        assert "  unused  hidden_3.weight                   (2, 5)  none of this name here" in lines
        assert lines[-1] == "  a note"

    def test_the_report_survives_json(self):
        report = transfer_weights(network(n_outputs=3), network().state_dict(), "other")
        state = {"a": torch.ones(2)}
        _, learnt = split_learnt(join_learnt(state, report.to_dict()))
        assert TransferReport.from_dict(learnt) == report


class TestSources:
    @pytest.mark.parametrize("use_safetensors", [False, True])
    @pytest.mark.parametrize("kind", [str, lambda path: path])
    def test_a_file_of_either_format(self, use_safetensors, kind, tmp_path):
        path = tmp_path / "weights"
        write_tensors(join_learnt(network().state_dict(), {"format": 1}), path, use_safetensors)
        assert read_tensors(path).keys() == read_tensors(path, use_safetensors).keys()
        found = read_pretrained(kind(path), "Owner")
        assert found.state.keys() == network().state_dict().keys() and found.learnt == {"format": 1}
        write_tensors(network().state_dict(), path, use_safetensors)
        assert read_pretrained(kind(path), "Owner").learnt is None

    def test_a_network_and_its_state_dict(self):
        module = network()
        for given in (module, module.state_dict(), dict(module.state_dict())):
            found = read_pretrained(given, "Owner")
            assert found.state.keys() == module.state_dict().keys() and found.learnt is None

    def test_a_net_of_skorchs_frozen_or_not(self):
        net = NeuralNetRegressor(nn.Linear, module__in_features=3, module__out_features=1)
        with pytest.raises(InvalidInputError, match=r"'pretrained' parameter of Owner .* not fitted.*FrozenEstimator"):
            read_pretrained(net, "Owner")
        net.initialize()
        for given in (net, FrozenEstimator(net)):
            found = read_pretrained(given, "Owner")
            assert found.source == "NeuralNetRegressor" and found.state.keys() == {"weight", "bias"} and found.learnt == {}

    def test_what_is_around_a_net_is_none(self):
        net = NeuralNetRegressor(nn.Linear, module__in_features=3, module__out_features=1, verbose=0, train_split=None)
        X, y = np.random.default_rng(0).random((12, 3), np.float32), np.ones((12, 1), np.float32)
        search = GridSearchCV(net, {"lr": [0.1]}, cv=2).fit(X, y)
        around = GridSearchCV(make_pipeline("passthrough", net), {"neuralnetregressor__lr": [0.1]}, cv=2).fit(X, y)
        forest = RandomForestRegressor(2).fit(X, y.ravel())
        for given, says in (
            (search, r"GridSearchCV\(...\).best_estimator_"),
            (make_pipeline(net).fit(X, y), r"Pipeline\(...\)\[-1\]"),
            (around, r"GridSearchCV\(...\).best_estimator_\[-1\]"),
            (forest, "Give a net of skpt's or of skorch's"),
            (make_pipeline(StandardScaler(), forest), "Give a net of skpt's or of skorch's"),
        ):
            with pytest.raises(InvalidInputError, match=f"Got {type(given).__name__}, which is no net. .*{says}"):
                read_pretrained(given, "Owner")

    @pytest.mark.parametrize("given", [3, {}, {"a": 1}, ["weights"], nn.ReLU()], ids=repr)
    def test_anything_else_is_an_error(self, given):
        with pytest.raises(InvalidInputError, match="'pretrained' parameter of Owner must be a fitted net"):
            read_pretrained(given, "Owner")

    def test_a_file_that_is_not_there_or_of_no_tensors(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_pretrained(tmp_path / "none", "Owner")
        torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "nested")
        with pytest.raises(InvalidInputError, match="without tensors"):
            read_pretrained(tmp_path / "nested", "Owner")
        (tmp_path / "text").write_text("text")
        with pytest.raises(InvalidInputError, match="must be one of safetensors"):
            read_pretrained(tmp_path / "text", "Owner")


class TestFreezing:
    @pytest.mark.parametrize(
        ("freeze", "weights"),
        [
            ("hidden_1", {"hidden_1.weight"}),
            ("hidden*", {"hidden_1.weight", "hidden_2.weight"}),
            (("hidden_1", "*.bias"), {"hidden_1.weight", "batch_norm_1.bias", "batch_norm_2.bias", "output.bias"}),
            (["output.bias"], {"output.bias"}),
            (None, set()),
            ((), set()),
        ],
        ids=lambda each: str(sorted(each)) if isinstance(each, set) else str(each),
    )
    def test_patterns_name_layers_and_parameters(self, freeze, weights):
        assert set(find_frozen(network(), freeze, "Owner").weights) == weights

    def test_a_name_stands_for_all_below_it(self):
        module = nn.ModuleDict({"branch": network(), "top": nn.Linear(2, 1)})
        frozen = find_frozen(module, "branch", "Owner")
        assert set(frozen.weights) == {f"branch.{name}" for name, _ in network().named_parameters()}
        assert set(frozen.statistics) == {"branch.batch_norm_1", "branch.batch_norm_2"}

    @pytest.mark.parametrize(
        ("freeze", "statistics"),
        [
            ("batch_norm_1", ("batch_norm_1",)),
            ("batch_norm_1.*", ("batch_norm_1",)),
            ("batch_norm_1.weight", ()),
            ("hidden*", ()),
        ],
    )
    def test_a_norm_keeps_its_statistics_if_all_of_it_is_frozen(self, freeze, statistics):
        assert find_frozen(network(), freeze, "Owner").statistics == statistics

    def test_a_norm_without_weights_is_frozen_by_name(self):
        module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False), nn.Linear(2, 1))
        assert find_frozen(module, "1", "Owner") == Frozen((), ("1",))
        assert find_frozen(module, "0", "Owner") == Frozen(("0.weight", "0.bias"), ())

    def test_what_is_held_has_no_gradient_and_trains_again_when_released(self):
        module = network()
        module(torch.ones(5, 4)).sum().backward()
        frozen = find_frozen(module, ("hidden_1", "batch_norm_1"), "Owner")
        frozen.hold(module)
        assert module.hidden_1.weight.grad is None and module.hidden_2.weight.grad is not None
        module.train()
        frozen.keep_statistics(module)
        before = copied(module)
        module(torch.randn(5, 4)).sum().backward()
        assert module.hidden_1.weight.grad is None
        assert torch.equal(module.batch_norm_1.running_mean, before["batch_norm_1.running_mean"])
        assert not torch.equal(module.batch_norm_2.running_mean, before["batch_norm_2.running_mean"])
        assert find_frozen(module, "hidden*", "Owner", frozen).weights == ("hidden_1.weight", "hidden_2.weight")
        frozen.release(module)
        assert all(p.requires_grad for p in module.parameters())

    def test_what_a_network_froze_itself_is_not_released(self):
        module = network()
        module.hidden_1.requires_grad_(False)
        frozen = find_frozen(module, "hidden*", "Owner")
        frozen.hold(module)
        frozen.release(module)
        assert not module.hidden_1.weight.requires_grad and module.hidden_2.weight.requires_grad

    @pytest.mark.parametrize(
        ("freeze", "message"),
        [
            ("hiden_1", r"'hiden_1' of Owner matches no layer.* Did you mean 'hidden_1'\? Layers with weights are: b"),
            (("hidden_1", "conv*"), r"'conv\*' of Owner matches no layer"),
            ("activation_1", "'activation_1' of Owner matches no layer"),
            ("Hidden_1", "'Hidden_1' of Owner matches no layer"),
            ("*", r"matches all weights, and nothing is left to train. .* 'output'"),
            (("hidden*", "batch*", "output"), "matches all weights"),
            ((1,), "must hold patterns"),
        ],
        ids=str,
    )
    def test_patterns_that_cannot_be_meant_are_errors(self, freeze, message):
        module = network()
        with pytest.raises(InvalidInputError, match=message):
            find_frozen(module, freeze, "Owner")
        assert all(p.requires_grad for p in module.parameters())


class TestRates:
    def optimizer(self, module, **kwargs):
        return optim.SGD(module.parameters(), lr=0.5, momentum=0.9, **kwargs)

    def test_loaded_weights_have_their_share_of_the_rate(self):
        module = network()
        optimizer = self.optimizer(module)
        scale_loaded_rates(optimizer, module.hidden_1.parameters(), 0.1)
        new, loaded = optimizer.param_groups
        assert (new["lr"], loaded["lr"], loaded["lr_factor"]) == (0.5, 0.05, 0.1)
        assert loaded["params"] == [module.hidden_1.weight] and loaded["momentum"] == 0.9
        assert len(new["params"]) + 1 == len(list(module.parameters()))

    @pytest.mark.parametrize("factor", [0.0, 0.1, 1.0, 3.0])
    def test_a_step_is_as_long_as_the_factor_says(self, factor):
        """Without momentum and decay, a step is the rate times the gradient."""
        module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        optimizer = optim.SGD(module.parameters(), lr=0.5)
        scale_loaded_rates(optimizer, module[0].parameters(), factor)
        before = copied(module)
        module(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        for name, parameter in module.named_parameters():
            rate = 0.5 * (factor if name.startswith("0") else 1.0)
            torch.testing.assert_close(parameter.data, before[name] - rate * parameter.grad)

    def test_another_call_undoes_the_one_before_and_keeps_the_state(self):
        module = network()
        optimizer = self.optimizer(module)
        module(torch.randn(5, 4)).sum().backward()
        scale_loaded_rates(optimizer, module.hidden_1.parameters(), 0.1)
        optimizer.step()
        state = dict(optimizer.state)
        scale_loaded_rates(optimizer, module.output.parameters(), 0.2)
        assert [len(group["params"]) for group in optimizer.param_groups] == [len(list(module.parameters())) - 2, 2]
        scale_loaded_rates(optimizer, module.output.parameters(), 1.0)
        (group,) = optimizer.param_groups
        assert group["lr"] == 0.5 and {id(p) for p in group["params"]} == {id(p) for p in module.parameters()}
        assert dict(optimizer.state) == state

    def test_groups_of_the_users_own_are_split_each(self):
        module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        groups = [{"params": [module[0].weight, module[1].weight], "lr": 0.2}, {"params": [module[0].bias, module[1].bias]}]
        optimizer = optim.SGD(groups, lr=0.5)
        scale_loaded_rates(optimizer, module[0].parameters(), 0.5)
        assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.1, 0.5, 0.25]

    @pytest.mark.parametrize("everything", [False, True])
    def test_the_rates_follow_whatever_the_schedule_does(self, everything):
        module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        optimizer = optim.SGD(module.parameters(), lr=0.5)
        scale_loaded_rates(optimizer, module.parameters() if everything else module[0].parameters(), 0.1)
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2.0, total_steps=10)
        for _ in range(9):
            optimizer.step()
            schedule.step()
            follow_rates(optimizer)
            new, loaded = optimizer.param_groups
            assert loaded["lr"] == 0.1 * new["lr"]

    def test_an_optimizer_with_one_rate_alone_is_an_error(self):
        module = network()
        optimizer = optim.LBFGS(module.parameters())
        scale_loaded_rates(optimizer, module.hidden_1.parameters(), 1.0)
        with pytest.raises(InvalidInputError, match="LBFGS has one learning rate"):
            scale_loaded_rates(optimizer, module.hidden_1.parameters(), 0.1)
        assert len(optimizer.param_groups) == 1
