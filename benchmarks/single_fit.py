"""One whole `fit` against a hand-written tensor loop, scikit-learn's MLP and skorch, at one thread."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.peers import PlainMLP, classes, plain_loop, silently, sklearn_mlp, skorch_net
from benchmarks.timing import Timings, duration, interleave, machine, text_table
from skpt import CNNClassifier, MLPClassifier, RNNClassifier, TransformerClassifier

# n_samples, n_features, hidden units, batch size, epochs, classes
CONFIGURATIONS = [
    (150, 4, 10, 32, 50, 3),
    (1437, 64, 100, 32, 5, 10),
    (1437, 64, 100, 200, 10, 10),
    (20000, 50, 256, 256, 2, 2),
    (20000, 50, 256, 1024, 2, 2),
]
TARGETS = {"plain loop": 1.0, "scikit-learn": 1.0, "skorch": 0.35}


@dataclass
class Architecture:
    """A network other than an MLP: ours, and the same layers of torch's in a hand-written loop."""

    name: str
    estimator: object
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of a row
    n_samples: int
    batch_size: int
    epochs: int
    to_reach: float


def _torch_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


class _TorchRNN(nn.Module):
    """Torch's recurrent layers, and a linear one on their last state."""

    def __init__(self, layers: type[nn.RNNBase]):
        super().__init__()
        self.layers = layers(8, 32, num_layers=2, batch_first=True)
        self.output = nn.Linear(32, 10)

    def forward(self, X):
        _, last = self.layers(X)
        return self.output((last[0] if isinstance(last, tuple) else last)[-1])


class _TorchTransformer(nn.Module):
    """Torch's encoder, and a linear layer on the mean of its steps."""

    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Linear(8, 32), nn.Linear(32, 10)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(32), enable_nested_tensor=False)
        self.dropout = nn.Dropout(0.1)
        self.register_buffer("position", torch.randn(96, 32))

    def forward(self, X):
        return self.output(self.encoder(self.dropout(self.embedding(X) + self.position)).mean(1))


def _rnn(cell: str, layers: type[nn.RNNBase], to_reach: float) -> Architecture:
    name = f"{cell.upper()}, 96 steps of 8, 2 layers of 32, batch 32"
    net = RNNClassifier(32, 2, cell=cell, lr=1e-3, lr_schedule=None)
    return Architecture(name, net, partial(_TorchRNN, layers), (96, 8), 640, 32, 4, to_reach)


ARCHITECTURES = [
    Architecture("CNN, 28 x 28, batch 64", CNNClassifier(), _torch_cnn, (1, 28, 28), 1280, 64, 1, 1.05),
    _rnn("lstm", nn.LSTM, 1.05),
    _rnn("gru", nn.GRU, 0.5),
    _rnn("rnn", nn.RNN, 1.05),
    Architecture(
        "Transformer, 96 steps of 8, 2 layers of 32, batch 32",
        TransformerClassifier(dropout=0.1, lr=1e-3),
        _TorchTransformer,
        (96, 8),
        640,
        32,
        2,
        1.05,
    ),
]


def measure_architecture(architecture: Architecture, repeats: int) -> Timings:
    """Time ours and the loop by turns, on the same data and losses."""
    random = np.random.default_rng(0)
    X = random.standard_normal((architecture.n_samples, *architecture.shape)).astype("f4")
    y = np.arange(architecture.n_samples) % 10
    settings = {"batch_size": architecture.batch_size, "max_epochs": architecture.epochs, "random_state": 0}
    ours = architecture.estimator.set_params(criterion="cross_entropy", **settings)
    tensors = torch.from_numpy(X), torch.from_numpy(y)

    def by_hand():
        return plain_loop(
            *tensors,
            architecture.build(),
            nn.CrossEntropyLoss(),
            batch_size=architecture.batch_size,
            epochs=architecture.epochs,
        )

    return interleave({"skpt": silently(lambda: ours.fit(X, y)), "plain loop": by_hand}, repeats)


def measure(configuration: tuple[int, ...], repeats: int) -> Timings:
    """Time the four ways on one configuration; every one computes the same losses on the same data."""
    n_samples, n_features, n_hidden, batch_size, epochs, n_classes = configuration
    X, y = classes(n_samples, n_features, n_classes)
    X32, y64 = torch.from_numpy(X.astype("f4")), torch.from_numpy(y)
    ours = MLPClassifier((n_hidden,), criterion="cross_entropy", batch_size=batch_size, max_epochs=epochs, random_state=0)
    sklearn = sklearn_mlp(True, (n_hidden,), batch_size, epochs)
    skorch = skorch_net(True, n_features, (n_hidden,), n_classes, batch_size, epochs)
    X_skorch = X.astype("f4")

    def by_hand():
        module = PlainMLP(n_features, (n_hidden,), n_classes)
        return plain_loop(X32, y64, module, nn.CrossEntropyLoss(), batch_size=batch_size, epochs=epochs)

    return interleave(
        {
            "skpt": silently(lambda: ours.fit(X, y)),
            "plain loop": by_hand,
            "scikit-learn": silently(lambda: sklearn.fit(X, y)),
            "skorch": lambda: skorch.fit(X_skorch, y),
        },
        repeats,
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks single_fit", description=__doc__)
    parser.add_argument("rows", nargs="*", default=["mlp", "architectures"], help="mlp, architectures (default: both)")
    parser.add_argument("--repeats", type=int, default=11, help="rounds that count (default: 11)")
    arguments = parser.parse_args(argv)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            print(machine())
            if "mlp" in arguments.rows:
                print(_table([(c, measure(c, arguments.repeats)) for c in CONFIGURATIONS]))
                print(
                    "To reach: at most 1.0 of the plain loop; at most 1.0 of scikit-learn on all but the smallest; "
                    "at most 0.35 of skorch."
                )
            if "architectures" in arguments.rows:
                print(_architectures([(a, measure_architecture(a, arguments.repeats)) for a in ARCHITECTURES]))
    finally:
        torch.set_num_threads(before)
    return 0


def _table(results: list[tuple[tuple[int, ...], Timings]]) -> str:
    rows = [
        [
            str(configuration[:5]),
            duration(timings.median("skpt")),
            *(f"{timings.ratio('skpt', to=peer):.2f}" for peer in TARGETS),
        ]
        for configuration, timings in results
    ]
    return text_table(["(n, features, hidden, batch, epochs)", "skpt", *(f"/ {peer}" for peer in TARGETS)], rows)


def _architectures(results: list[tuple[Architecture, Timings]]) -> str:
    rows = [
        [each.name, duration(timings.median("skpt")), f"{timings.ratio('skpt', to='plain loop'):.2f}", f"{each.to_reach:g}"]
        for each, timings in results
    ]
    return text_table(["network", "skpt", "/ plain loop", "to reach"], rows)
