"""One whole `fit` against a hand-written tensor loop, scikit-learn's MLP and skorch, at one thread."""

import argparse

import torch
from torch import nn

from benchmarks.peers import PlainMLP, classes, plain_loop, silently, sklearn_mlp, skorch_net
from benchmarks.timing import Timings, duration, interleave, machine, text_table
from skpt import MLPClassifier

# n_samples, n_features, hidden units, batch size, epochs, classes
CONFIGURATIONS = [
    (150, 4, 10, 32, 50, 3),
    (1437, 64, 100, 32, 5, 10),
    (1437, 64, 100, 200, 10, 10),
    (20000, 50, 256, 256, 2, 2),
    (20000, 50, 256, 1024, 2, 2),
]
TARGETS = {"plain loop": 1.0, "scikit-learn": 1.0, "skorch": 0.35}


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
    parser.add_argument("--repeats", type=int, default=11, help="rounds that count (default: 11)")
    arguments = parser.parse_args(argv)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            print(machine())
            print(_table([(c, measure(c, arguments.repeats)) for c in CONFIGURATIONS]))
    finally:
        torch.set_num_threads(before)
    print(
        "To reach: at most 1.0 of the plain loop; at most 1.0 of scikit-learn on all but the smallest; "
        "at most 0.35 of skorch."
    )
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
