"""What a fitted encoder makes of its layer, as one matrix on the layer's units.

Weights are kept, or fitted again, on the stimuli; from there they come to the components, random dimensions or
units that the encoder was given, and from those to the units. All of it is linear, so
it is done once and not in each pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.bids.arrays import read_activations, read_columns_file
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, sidecar_path
from bidsdnn.conditions import read_conditions
from bidsdnn.encoding.held import dual, is_linear
from bidsdnn.encoding.models import features_of, taken_by
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.extraction import activations_path, components_path
from bidsdnn.folding import is_series
from bidsdnn.geometry import Regions
from bidsdnn.methods.reduce import blocks
from bidsdnn.networks.appended import BRAIN, Readout
from bidsdnn.networks.network import Network
from bidsdnn.networks.reduction import Reduction
from bidsdnn.patterns import Group, Patterns
from bidsdnn.predicted import Encoded, encoder_of

_COLUMNS = 65_536
_MOST_UNITS = 20_000
"""Units up to which a model that hides its weights is asked for the prediction of each unit by itself."""


class Weights:
    """Weights of one encoding on the units of its layers: those stored, or those of a fit to all stimuli.

    Parameters
    ----------
    out : Derivatives
    network : Network
    encoded : Encoded
    regions : mapping
        Of the encoding's atlases, for models that fit a region's voxels together.
    device : str
    """

    def __init__(self, out: Derivatives, network: Network, encoded: Encoded, regions: Regions, device: str) -> None:
        self._out, self._network, self._encoded = out, network, encoded
        self._regions, self._device = regions, device
        self._path = out.path("weights", ".h5", **encoded.entities, model=network.label, desc="encoding")
        about = read_json(sidecar_path(self._path))
        self.stored = self._path.exists() and about.get("ConfigurationHash") == encoded.sidecar["ConfigurationHash"]
        self._pca = encoded.sidecar["Activations"][network.label].get("PCA")

    def readout(self, layer: str, columns: Sequence[np.ndarray], reduction: Reduction) -> Readout:
        """Read a layer out: a channel for each set of voxels, their mean.

        Parameters
        ----------
        layer : str
        columns : sequence of ndarray of bool, shape (voxels,)
        reduction : Reduction

        Returns
        -------
        Readout
        """
        given = self._table(activations_path(self._out, self._network.label), layer)
        table = self._table(components_path(self._out, self._network.label), layer) if self._pca is not None else given
        every = np.any(columns, axis=0)
        weights, intercept = self._kept(table, every) if self.stored else self._fitted(table, every)
        share = np.array([one[every] / one.sum() for one in columns]).T
        weights, intercept = weights @ share, intercept @ share
        if not (np.isfinite(weights).all() and np.isfinite(intercept).all()):
            raise DataError(f"{self._encoded.path.name}: the fit of {layer} has no weights in a voxel; choose another")
        centre = _mean(given)
        if table is not given:
            weights, intercept = on_units(given, table, weights, intercept)
        shape = self._network.shapes([layer])[layer][1]
        units = reduction.units(layer, shape)
        matrix = reduction.projection_matrix(layer, units)
        if matrix is not None:
            weights, centre = matrix.T @ weights, np.zeros(units)
        return Readout(layer, weights, intercept, centre, reduction)

    def _table(self, path: Any, layer: str) -> Patterns:
        ids, (stored,) = read_activations(path, [layer])
        group = Group(layer, stored, self._network.label, stored.unit_shape)
        return Patterns(pd.DataFrame({"stimulus_id": ids}), (group,))

    def _kept(self, table: Patterns, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        layer = table.groups[0].name
        ids, (alpha, intercept) = read_columns_file(self._path, [f"alpha/{layer}", f"intercept/{layer}"], columns)
        return _on_columns(_matched(table, ids), alpha.astype(np.float64)), intercept.astype(np.float64)

    def _fitted(self, table: Patterns, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit the encoder to all stimuli shown, voxels of all layers together as some models want."""
        sidecar, space = self._encoded.sidecar, self._encoded.space
        y, _ = read_conditions(self._out, space, self._encoded.entities)
        if is_series(y.items):
            raise DataError(f"--unit {BRAIN}: an encoder of volumes (--response timeseries) is no layer; use another")
        model = encoder_of(sidecar, len(columns), regions=self._regions, device=self._device)
        if getattr(model, "joint", False):
            raise ConfigError(
                f"--unit {BRAIN}: --encoder {sidecar['Encoder']} is one model of several layers; run encoding with one "
                "of each layer: ridge, ols, lasso, elastic-net or pls"
            )
        (group,) = table.match(y).groups
        features = features_of(model, group)
        model.fit(features, y.values)
        try:
            return weights_of(model, group, features, columns)
        except ValueError as error:
            raise ConfigError(
                f"--unit {BRAIN}: --encoder {sidecar['Encoder']} is not linear in the units, and only linear encoders "
                "are layers; run encoding with ridge, ols, lasso, elastic-net or pls"
            ) from error


def on_units(
    given: Patterns, scores: Patterns, weights: np.ndarray, intercept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn weights on principal components into weights on units.

    Scores of the stimuli that were fitted are S = C V, with C the centred activations, and the columns of S are
    orthogonal; so V = C' S (S'S)^-1, and a new stimulus' scores are (x - mean) V.

    Parameters
    ----------
    given : Patterns
        Activations.
    scores : Patterns
        Components of all stimuli that they were fitted to.
    weights : ndarray, shape (components, k)
    intercept : ndarray, shape (k,)

    Returns
    -------
    weights : ndarray, shape (units, k)
    intercept : ndarray, shape (k,)
    """
    s = np.asarray(scores.groups[0].values[:, :], dtype=np.float64)
    group = given.match(scores)
    size = (s**2).sum(axis=0)
    beta = np.divide(s, size, out=np.zeros_like(s), where=size > 1e-12 * size.max(initial=0)) @ weights
    beta -= beta.mean(axis=0)  # centres the activations
    found = _on_columns(group.groups[0].values, beta)
    return found, intercept - _mean(group) @ found


def weights_of(
    model: Any, group: Group, features: Any, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Weights of a fitted linear encoder on the units of its layer, whatever it was given of them.

    Parameters
    ----------
    model : object with ``predict``
    group : Group
        The layer.
    features : array-like
        What of it the model was fitted to, of `features_of`.
    columns : ndarray of bool, shape (n_voxels,)
        Voxels that are wanted.

    Returns
    -------
    weights : ndarray, shape (units, k)
    intercept : ndarray, shape (k,)

    Raises
    ------
    ValueError
        If the model is not linear.
    """
    if taken_by(model, group) == "rotation":
        alpha, intercept = dual(model, features)
        return _on_columns(group.values, alpha[:, columns]), intercept[columns]
    weights, intercept = unit_weights(model, np.asarray(group.values[:, :], dtype=np.float64))
    return weights[:, columns], intercept[columns]


def unit_weights(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and intercept of a fitted linear model on its features.

    Parameters
    ----------
    model : object with ``predict``
    x : ndarray, shape (n, p)
        What it was fitted to.

    Returns
    -------
    weights : ndarray, shape (p, n_voxels)
    intercept : ndarray, shape (n_voxels,)

    Raises
    ------
    ValueError
        If predictions for x are not linear in it, or it has too many features to tell.
    """
    p = x.shape[1]
    intercept = np.asarray(model.predict(np.zeros((1, p))), dtype=np.float64)[0]
    kept = np.asarray(getattr(model, "coef_", np.empty(0)), dtype=np.float64)
    if kept.shape == (p, len(intercept)):
        weights = kept
    elif p <= _MOST_UNITS:
        weights = np.empty((p, len(intercept)))
        for rows in blocks(p, 1024):
            each = np.zeros((rows.stop - rows.start, p))
            each[np.arange(len(each)), np.arange(rows.start, rows.stop)] = 1
            weights[rows] = np.asarray(model.predict(each), dtype=np.float64) - intercept
    else:
        raise ValueError(f"{type(model).__name__} has no coef_, and {p} features are too many to be tried")
    if not is_linear(model, x, weights, intercept):
        raise ValueError(f"{type(model).__name__} is not linear in the features")
    return weights, intercept


def _matched(table: Patterns, ids: Sequence[str]) -> Any:
    (group,) = table.match(Patterns(pd.DataFrame({"stimulus_id": ids}), ())).groups
    return group.values


def _on_columns(values: Any, alpha: np.ndarray) -> np.ndarray:
    """X' alpha, over blocks of X's columns."""
    found = np.empty((values.shape[1], alpha.shape[1]))
    for columns in blocks(values.shape[1], _COLUMNS):
        found[columns] = np.asarray(values[:, columns], dtype=np.float64).T @ alpha
    return found


def _mean(table: Patterns) -> np.ndarray:
    values = table.groups[0].values
    parts = [
        np.asarray(values[:, columns], dtype=np.float64).mean(axis=0) for columns in blocks(values.shape[1], _COLUMNS)
    ]
    return np.concatenate(parts)
