"""One task of the sweep: train one classifier on handwritten digits, and write how good it is to result.json.

    python train.py digits.npz KIND SETTING VARIANT

Simple kinds are a few lines of NumPy; the others are scikit-learn's, whose import alone takes a second.
Each kind imports only what it needs: with 200 short tasks, imports are most of the work.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

CLASSES = np.arange(10)


class Knn:
    """The nearest images vote."""

    def __init__(self, neighbours, weights):
        self.neighbours, self.is_weighted = int(neighbours), weights == "distance"

    def fit(self, images, labels):
        self.images, self.targets = images, np.eye(10)[labels]

    def predict(self, images):
        squares = (images**2).sum(1)[:, None] + (self.images**2).sum(1) - 2 * images @ self.images.T
        nearest = squares.argsort(1)[:, : self.neighbours]
        near = np.sqrt(np.maximum(np.take_along_axis(squares, nearest, 1), 1e-9))
        weights = 1 / near if self.is_weighted else np.ones_like(near)
        return (self.targets[nearest] * weights[..., None]).sum(1).argmax(1)


class Bayes:
    """Each pixel is normally distributed in each class, independently of the others."""

    def __init__(self, smoothing, prior):
        self.smoothing, self.is_even = float(smoothing), prior == "even"

    def fit(self, images, labels):
        parts = [images[labels == label] for label in CLASSES]
        self.means = np.array([part.mean(0) for part in parts])
        self.variances = np.array([part.var(0) for part in parts]) + self.smoothing * images.var(0).max()
        counts = np.array([len(part) for part in parts])
        self.priors = np.full(10, 0.1) if self.is_even else counts / counts.sum()

    def predict(self, images):
        squares = (images[:, None] - self.means) ** 2 / self.variances + np.log(self.variances)
        return (np.log(self.priors) - squares.sum(2) / 2).argmax(1)


class Ridge:
    """Least squares with a penalty, on the pixels and on random features of them."""

    def __init__(self, penalty, features):
        self.penalty = float(penalty)
        self.mixing = np.random.default_rng(0).normal(size=(65, int(features))) / 8

    def fit(self, images, labels):
        x = self._features(images)
        penalty = self.penalty * np.eye(x.shape[1])
        self.weights = np.linalg.solve(x.T @ x + penalty, x.T @ np.eye(10)[labels])

    def predict(self, images):
        return (self._features(images) @ self.weights).argmax(1)

    def _features(self, images):
        pixels = np.hstack([images / 8 - 1, np.ones((len(images), 1))])
        return np.hstack([pixels, np.maximum(pixels @ self.mixing, 0)])


class Softmax:
    """Multinomial logistic regression by gradient descent."""

    def __init__(self, steps, rate):
        self.steps, self.rate = int(steps), float(rate)

    def fit(self, images, labels):
        x, targets = images / 8 - 1, np.eye(10)[labels]
        self.weights = np.zeros((64, 10))
        for _ in range(self.steps):
            scores = np.exp(x @ self.weights)
            error = scores / scores.sum(1, keepdims=True) - targets
            self.weights -= self.rate * x.T @ error / len(x)

    def predict(self, images):
        return ((images / 8 - 1) @ self.weights).argmax(1)


def svm(c, gamma):
    from sklearn.svm import SVC

    return SVC(C=float(c), gamma=float(gamma))


def forest(trees, depth):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(int(trees), max_depth=int(depth), random_state=0)


def tree(depth, criterion):
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=int(depth), criterion=criterion, random_state=0)


KINDS = {
    "knn": Knn,
    "bayes": Bayes,
    "ridge": Ridge,
    "softmax": Softmax,
    "svm": svm,
    "forest": forest,
    "tree": tree,
}


def main(file, kind, setting, variant):
    digits = np.load(file)
    model = KINDS[kind](setting, variant)
    began = time.perf_counter()
    model.fit(digits["train_images"], digits["train_labels"])
    trained = time.perf_counter()

    def accuracy(part):
        return float((model.predict(digits[f"{part}_images"]) == digits[f"{part}_labels"]).mean())

    # Models are compared by the validation images; the test images say how good the chosen one is.
    result = {"accuracy": accuracy("check"), "test_accuracy": accuracy("test"), "train_s": trained - began}
    Path("result.json").write_text(json.dumps(result))
    print(f"{kind} {setting} {variant}: {result['accuracy']:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
